"""`adapterbot publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json, Out
from adapterbot.cli.output import leave, show


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
    show(written, as_json)
    leave(command.exit_code(written.report))
