"""`adapterbot gate`."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Adapter, Config, Device, Json, Out, Suite
from adapterbot.cli.output import leave, say, show


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
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            envvar="ADAPTERBOT_SEQUENTIAL",
            help="Stop as soon as every gated metric is clear.",
        ),
    ] = False,
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
            sequential=sequential,
        )
    )
    for problem in written.report.problems:
        where = ": ".join(part for part in (problem.file, problem.field) if part)
        fix = f" ({problem.fix})" if problem.fix else ""
        say(workflow.harmless(f"error: {where + ': ' if where else ''}{problem.message}{fix}"))
    show(written, as_json)
    leave(exit_code(written.report))
