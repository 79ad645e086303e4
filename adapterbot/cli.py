"""The command line: options in, exit codes out. Errors end here; nothing else maps them.

Standard output carries the result only; everything that is said on the way goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from adapterbot import __version__
from adapterbot.errors import AdapterbotError, ExitCode

if TYPE_CHECKING:
    from adapterbot.commands.publish import Written

app = typer.Typer(
    name="adapterbot",
    help="Reviewable pull requests for LoRA adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
lock_app = typer.Typer(help="soup.lock: pin base model, data and environment; check and explain.")
env_app = typer.Typer(help="The training environment that a lock pins.")
app.add_typer(lock_app, name="lock", no_args_is_help=True)
app.add_typer(env_app, name="env", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Device = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_DEVICE", help="cpu, cuda, cuda:1 …; the best there is."),
]
Out = Annotated[
    Path | None,
    typer.Option(envvar="ADAPTERBOT_OUT", help="Folder for the report; `.adapterbot/`."),
]
Suite = Annotated[
    str | None, typer.Option(envvar="ADAPTERBOT_SUITE", help="Eval suite; `evals/suite.yaml`.")
]
Adapter = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_ADAPTER", help="Adapter directory, from the repository root."),
]
Config = Annotated[
    str | None,
    typer.Option(envvar="ADAPTERBOT_CONFIG", help="adapterbot.yaml; at the root or in `.github/`."),
]
SoupYaml = Annotated[Path, typer.Option("--config", "-c", help="The training config.")]


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"adapterbot {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reviewable pull requests for LoRA adapters."""


def _exit(code: ExitCode) -> NoReturn:
    raise typer.Exit(int(code))


def _show(written: Written, as_json: bool) -> None:
    """The result on standard output: the report, or the comments as a reader would see them."""
    if as_json:
        sys.stdout.write(written.report_path.read_text(encoding="utf-8"))
        return
    # In a job's log the comment is one click away; model text has no business there.
    if os.environ.get("GITHUB_ACTIONS") != "true":
        from rich.console import Console
        from rich.markdown import Markdown

        console = Console()
        for path in written.comment_paths:
            console.print(Markdown(path.read_text(encoding="utf-8")))
    _say(f"comment  {', '.join(str(path) for path in written.comment_paths) or 'none'}")
    _say(f"report   {written.report_path}")
    _say(f"picture  {written.html_path}")


@app.command()
def gate(
    base: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_BASE", help="Ref to compare with; the default branch."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_HEAD", help="Ref to judge; the files as they lie on disk."),
    ] = None,
    config: Config = None,
    adapter: Adapter = None,
    suite: Suite = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_BASELINE",
            help="`base-ref` (the adapter at the base), `none` (the bare model), or a path.",
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_CHECKPOINTS", help="Archived checkpoints to search on a regression."
        ),
    ] = None,
    publish: Annotated[
        str, typer.Option(envvar="ADAPTERBOT_PUBLISH", help="`comment`, or `none`.")
    ] = "comment",
    device: Device = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Judge the adapters that a change touches, and say so.

    On a GitHub runner the event says what to compare; by hand, `--base` and `--head` do:

        adapterbot gate --base main --head my-branch

    Exit codes: 0 clean, 1 we failed, 2 bad input, 3 a finding.
    """
    from adapterbot.commands import gate as command
    from adapterbot.commands.publish import exit_code
    from adapterbot.errors import InputError
    from adapterbot.gh import workflow

    if publish not in ("comment", "none"):
        raise InputError(
            f"{publish!r} is not a way to publish", field="--publish", fix="use comment or none"
        )
    written = command.run(
        command.GateOptions(
            base=base,
            head=head,
            config=config,
            adapter=adapter,
            suite=suite,
            baseline=baseline,
            checkpoints=checkpoints,
            device=device,
            out=out,
            comment=publish == "comment",
        )
    )
    for problem in written.report.problems:
        where = ": ".join(part for part in (problem.file, problem.field) if part)
        fix = f" ({problem.fix})" if problem.fix else ""
        _say(workflow.harmless(f"error: {where + ': ' if where else ''}{problem.message}{fix}"))
    _show(written, as_json)
    _exit(exit_code(written.report))


@app.command()
def bisect(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            envvar="ADAPTERBOT_CHECKPOINTS",
            help="Checkpoint directories, oldest first, or one pattern such as 'checkpoints/*'.",
        ),
    ] = None,
    config: Config = None,
    adapter: Adapter = None,
    suite: Suite = None,
    metric: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_METRIC", help="Task to search with; whatever regressed."),
    ] = None,
    device: Device = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find the checkpoint of a training run that broke a metric.

        adapterbot bisect 'checkpoints/*' --metric date_us

    Exit codes: 0 nothing broke, 1 we failed, 2 bad input, 3 found it.
    """
    from adapterbot.commands import bisect as command

    written = command.run(
        command.BisectOptions(
            checkpoints=tuple(checkpoints or ()),
            config=config,
            adapter=adapter,
            suite=suite,
            metric=metric,
            device=device,
            out=out,
        )
    )
    _show(written, as_json)
    _exit(command.exit_code(written.report))


@app.command()
def publish(
    report: Annotated[
        Path, typer.Option(envvar="ADAPTERBOT_REPORT", help="The report.json of a gate.")
    ] = Path("report.json"),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Post the report that another job made: that job needs no token, this one no torch.

        adapterbot publish --report report.json

    Exit codes: as `gate`, from the verdict in the report.
    """
    from adapterbot.commands import publish as command

    written = command.run(report, out)
    _show(written, as_json)
    _exit(command.exit_code(written.report))


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Argument(help="Folder to build the repository in; a temporary one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Gate a bad pull request in a repository made on the spot. No account, no GPU, no network.

    adapterbot demo
    """
    from adapterbot.commands import demo as command
    from adapterbot.commands.publish import exit_code

    written = command.run(directory, _say)
    _show(written, as_json)
    # A regression is what the demo is there to show: finding where it broke is success.
    if command.found_the_break(written.report):
        _exit(ExitCode.CLEAN)
    _exit(max(exit_code(written.report), ExitCode.FAILURE))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this machine: Python, git, torch, GPU, disk. Says what to do about each lack.

    Exit codes: 0 all that is required is there, 3 something is not.
    """
    from adapterbot.commands import doctor as command

    findings = command.examine()
    if as_json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "missing" if finding.required else "note"
            fix = f"  → {finding.fix}" if finding.fix else ""
            typer.echo(f"{mark:<8}{finding.what:<14}{finding.found}{fix}")
    lacking = any(finding.required and not finding.ok for finding in findings)
    _exit(ExitCode.FINDING if lacking else ExitCode.CLEAN)


@lock_app.command("write")
def lock_write(
    config: SoupYaml = Path("soup.yaml"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup.lock"
    ),
    as_json: Json = False,
) -> None:
    """Pin what a training config names: base model, data and soup-env.lock.

    adapterbot lock write --config soup.yaml -o soup.lock
    """
    from adapterbot.commands import lock as command

    made = command.write(config, output)
    typer.echo(
        made.model_dump_json(indent=2) if as_json else f"{output}  closure {made.closure_sha}"
    )


@lock_app.command("show")
def lock_show(
    path: Annotated[Path, typer.Argument(help="The lock.")] = Path("soup.lock"),
    as_json: Json = False,
) -> None:
    """Print a lock, its closure verified.

    adapterbot lock show soup.lock
    """
    from adapterbot.commands import lock as command

    lock = command.read(path)
    if as_json:
        typer.echo(lock.model_dump_json(indent=2))
        return
    for name, value in lock.model_dump().items():
        typer.echo(f"{name:<16}{value}")
    _say("the closure is the one of these three hashes")


@lock_app.command("check")
def lock_check(
    path: Annotated[Path, typer.Argument(help="The lock.")] = Path("soup.lock"),
    config: SoupYaml = Path("soup.yaml"),
    as_json: Json = False,
) -> None:
    """Compare a lock with the files beside it.

        adapterbot lock check soup.lock --config soup.yaml

    Exit codes: 0 unchanged, 2 a broken file, 3 drift.
    """
    from adapterbot.commands import lock as command
    from adapterbot.records import LockStatus

    result = command.check(path, config)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for part in result.parts:
            tail = "" if part.ok else f"  locked {part.locked[:12]} now {part.now[:12]}"
            why = f"  {part.explanation}" if part.explanation else ""
            typer.echo(f"{'ok' if part.ok else 'drift':<7}{part.part:<16}{tail}{why}")
        if result.note:
            _say(result.note)
    _exit(ExitCode.CLEAN if result.status is LockStatus.OK else ExitCode.FINDING)


@env_app.command("lock")
def env_lock(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup-env.lock"
    ),
    as_json: Json = False,
) -> None:
    """Write soup-env.lock: every package that is installed beside this Python.

    adapterbot env lock -o soup-env.lock
    """
    from adapterbot.commands import lock as command

    found = command.write_environment(output)
    typer.echo(
        json.dumps({"path": str(output), "env_hash": found}) if as_json else f"{output}  {found}"
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given)
    except AdapterbotError as error:
        _tell(error, as_json="--json" in given)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(int(ExitCode.FAILURE))
    raise AssertionError("typer always exits")


def _tell(error: AdapterbotError, *, as_json: bool) -> None:
    """An error as a person, a script and a runner read it."""
    from adapterbot.commands.publish import problem_annotation
    from adapterbot.gh import workflow
    from adapterbot.unjudged import problem_of

    _say(workflow.harmless(f"error: {error}"))
    if as_json:
        typer.echo(json.dumps({"error": problem_of(error).model_dump()}, indent=2))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _say(problem_annotation(problem_of(error), "adapterbot"))


if __name__ == "__main__":
    main()
