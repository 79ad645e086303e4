"""`adapterbot bisect`."""

from __future__ import annotations

from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Adapter, Config, Device, Engine, Json, Out, Suite
from adapterbot.cli.output import leave, show


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
    base: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_BASE", help="Commit of the policy, for a comment's ask."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_HEAD", help="Commit of a comment's ask."),
    ] = None,
    device: Device = None,
    engine: Engine = None,
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
            engine=tuple(engine or ()),
            out=out,
            base=base,
            head=head,
        )
    )
    show(written, as_json)
    leave(command.exit_code(written.report))
