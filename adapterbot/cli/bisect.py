"""`adapterbot bisect`: a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import document, leave, line, say, show
from adapterbot.probing.names import Prior

if TYPE_CHECKING:
    from adapterbot.bisect import SavedBisect


class _SearchByDefault(TyperGroup):
    """`bisect CKPT…` is `bisect search CKPT…`: only `log` and `replay` are named."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or args[0] not in self.commands:
            args = ["search", *args]
        return super().parse_args(ctx, args)


class _Context(typer.Context):
    @property
    def command_path(self) -> str:
        return self.parent.command_path if self.parent else super().command_path


class _Search(options.OnCluster):
    """Goes by its group's name, as it is called."""

    context_class = _Context


bisect_app = typer.Typer(cls=_SearchByDefault, help="Find the checkpoint that broke a metric.")
app.add_typer(bisect_app, name="bisect")


@bisect_app.command("search", cls=_Search, hidden=True)
def bisect(
    context: typer.Context,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            envvar="ADAPTERBOT_CHECKPOINTS",
            help="Checkpoints, oldest first; or an archive: 'checkpoints/*', git:PATH, "
            "hf://ORG/NAME, s3://BUCKET/RUN.",
        ),
    ] = None,
    config: options.Config = None,
    adapter: options.Adapter = None,
    suite: options.Suite = None,
    metric: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_METRIC", help="Task to search by.", show_default="whatever regressed"
        ),
    ] = None,
    eval_command: Annotated[
        str | None,
        typer.Option(
            help="Judge by this command instead of a suite. It must contain {ckpt}, the path of "
            "the checkpoint, and may contain {index} and {step}. Exit codes: 0 good, 1-124 bad, "
            "125 cannot tell; with any other the command failed, and is tried again."
        ),
    ] = None,
    outcomes: Annotated[
        str,
        typer.Option(
            help="How far to trust the command: `noisy` results may differ from run to run; "
            "`repeat` gives the same result each time (greedy decoding); `exact` is never wrong."
        ),
    ] = "noisy",
    score_regex: Annotated[
        str | None,
        typer.Option(
            help="Read a score from standard output with this regex: last match, first group."
        ),
    ] = None,
    score_json: Annotated[
        str | None,
        typer.Option(
            help="Read a score from JSON: a path of keys, such as results.acc, into standard "
            "output or its last line."
        ),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="A lower score of the command is better.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=1,
            callback=options.a_number,
            help="Time limit in seconds for one run of the command.",
        ),
    ] = 3600.0,
    retries: Annotated[
        int, typer.Option(min=0, max=10, help="How often to retry a command that failed.")
    ] = 2,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable to pass to the command, which otherwise sees no secrets. "
            "Repeatable."
        ),
    ] = None,
    assume_endpoints: Annotated[
        bool,
        typer.Option(
            "--assume-endpoints", help="Take the first as good and the last as bad, unchecked."
        ),
    ] = False,
    prior: Annotated[
        Prior,
        typer.Option(
            help="Where to expect the break beforehand: anywhere (`uniform`), or where more of "
            "the `weights` or of the training `data` changed between checkpoints."
        ),
    ] = Prior.UNIFORM,
    confidence: Annotated[
        float,
        typer.Option(
            min=0.5,
            max=0.9999,
            callback=options.a_number,
            help="Stop at this probability of the first bad checkpoint.",
        ),
    ] = 0.95,
    probes_max: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many probes.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Start no probe after this time: 90s, 30m, 1h.")
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Probes at a time: runs of the command, or checkpoints in one batch.",
        ),
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a search that was interrupted.")
    ] = False,
    blame: Annotated[
        bool,
        typer.Option(
            "--blame",
            envvar="ADAPTERBOT_BLAME",
            help="Rank the training rows that came in where it broke, by their gradients.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        options.output_option(
            "Where to write bisect.json.", "with --eval-command, bisect.json in --out"
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_BASE", help="Base commit, when answering `/adapterbot bisect`."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            envvar="ADAPTERBOT_HEAD", help="Head commit, when answering `/adapterbot bisect`."
        ),
    ] = None,
    device: options.Device = None,
    engine: options.Engine = None,
    server: options.Server = None,
    ray: options.Ray = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Find the checkpoint of a training run that broke a metric.

    ```console
    adapterbot bisect 'checkpoints/*' --metric dates_us
    adapterbot bisect ckpt-500 ckpt-1000 ckpt-1500 --eval-command "./judge --model {ckpt}"
    ```

    `adapterbot bisect log` shows the probes of a search; `adapterbot bisect replay` computes its
    result from them again.

    Exit codes: 0 nothing broke, 1 we failed, 2 bad input, 3 found it.
    """
    from adapterbot.bisect import Limits

    limits = Limits(
        probes=probes_max, seconds=None if budget is None else options.seconds_of(budget), jobs=jobs
    )
    _refuse_ignored(context, by_command=eval_command is not None)
    named = tuple(options.one_from_environment(context, "checkpoints", checkpoints))
    from adapterbot.commands import bisect_command

    if eval_command is not None:
        found = bisect_command.run(
            bisect_command.CommandOptions(
                checkpoints=named,
                command=eval_command,
                outcomes=outcomes,
                score_regex=score_regex,
                score_json=score_json,
                lower_is_better=lower_is_better,
                assume_endpoints=assume_endpoints,
                prior=prior,
                confidence=confidence,
                limits=limits,
                timeout=timeout,
                retries=retries,
                pass_env=tuple(pass_env or ()),
                resume=resume,
                output=output,
                out=out,
                config=config,
                adapter=adapter,
            )
        )
        tell(found, as_json)
        leave(bisect_command.exit_code(found.verdict))
    from adapterbot.commands import bisect as command
    from adapterbot.records import BisectVerdict

    written = command.run(
        command.BisectOptions(
            checkpoints=named,
            config=config,
            adapter=adapter,
            suite=suite,
            metric=metric,
            device=device,
            engine=tuple(engine or ()),
            server=server,
            ray=ray,
            prior=prior,
            confidence=confidence,
            limits=limits,
            resume=resume,
            blame=blame,
            output=output,
            out=out,
            base=base,
            head=head,
        )
    )
    show(written, as_json)
    result = written.report.adapters[0].bisect
    leave(bisect_command.exit_code(result.verdict if result else BisectVerdict.NOT_RUN))


_OF_A_COMMAND = frozenset(
    {
        "outcomes",
        "score_regex",
        "score_json",
        "lower_is_better",
        "timeout",
        "retries",
        "pass_env",
        "assume_endpoints",
    }
)
_OF_A_SUITE = frozenset(
    {"suite", "metric", "blame", "base", "head", "device", "engine", "server", "ray"}
)


def _refuse_ignored(context: typer.Context, *, by_command: bool) -> None:
    """An option that was typed and that this search would not read."""
    if by_command:
        options.refuse_typed(
            context, _OF_A_SUITE, "applies to a search by suite only", "drop it, or --eval-command"
        )
    else:
        options.refuse_typed(
            context, _OF_A_COMMAND, "applies to --eval-command only", "add --eval-command"
        )


def tell_steps(found: SavedBisect) -> None:
    """The probes, a line each."""
    for step in found.steps:
        line(f"{step.outcome.value:<8} {step.seconds:8.2f} s  {step.checkpoint}  {step.detail}")


def tell(found: SavedBisect, as_json: bool) -> None:
    """A result on standard output: a document, or a few lines."""
    if as_json:
        document(found.model_dump_json(indent=2))
        return
    tell_steps(found)
    sure = "" if found.probability is None else f", probability {found.probability:.3f}"
    said = f"{found.verdict.value} {found.first_broken or ''}".rstrip()
    line(f"{said}{sure}, {found.probes} probe{'' if found.probes == 1 else 's'}")
    for candidate in found.posterior[:8] if found.verdict.value == "BROKEN_WITHIN" else ():
        line(f"  {candidate.probability:.3f}  {candidate.checkpoint}")
    if found.between and found.between.data:
        rows = found.between.data.summary
        line(f"training data since {found.last_good}: {rows}")
    for note in (found.note, *(found.between.notes if found.between else ())):
        if note:
            say(note)
