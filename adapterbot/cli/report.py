"""`adapterbot report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import REPORT, Json, output_option
from adapterbot.cli.output import document, say


@app.command()
def report(
    report: Annotated[
        Path, typer.Argument(help="The report.json of a gate, a bisect or a delta.")
    ] = REPORT,
    output: Annotated[
        Path | None, output_option("The page to write.", "report.html beside the report")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option(help="merge.json of the candidate, to show how it was merged.")
    ] = None,
    routes: Annotated[
        Path | None,
        typer.Option(help="Output of `mole route --json`, to show as a heat map."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a report as one HTML page that needs nothing else, with every sample in it.

    Samples are taken from the results in the report's folder.

    ```console
    adapterbot report .adapterbot/report.json -o report.html
    ```
    """
    from adapterbot.commands import report as command
    from adapterbot.commands.folders import left_here

    written = command.run(left_here(report, REPORT), output, merge=merge, routes=routes)
    if as_json:
        document(written.model_dump_json(indent=2))
    else:
        say(f"page     {written.page}")
