"""`adapterbot explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import REPORT, Json
from adapterbot.cli.output import document, lines


@app.command()
def explain(
    report: Annotated[
        Path, typer.Argument(help="The report.json of a gate, a bisect or a delta.")
    ] = REPORT,
    as_json: Json = False,
) -> None:
    """Explain a verdict: each rule with its figures filled in.

    ```console
    adapterbot explain .adapterbot/report.json
    ```

    Exit codes: 0 explained, 1 we failed, 2 bad input.
    """
    from adapterbot.commands.folders import left_here
    from adapterbot.commands.report_files import read_report
    from adapterbot.pages.explanation import explain as explained
    from adapterbot.pages.explanation import text

    found = explained(read_report(left_here(report, REPORT)))
    if as_json:
        document(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
    else:
        said = "\n\n".join(map(text, found)) or "the report is about no adapter"
        lines(said)
