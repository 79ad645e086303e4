"""`adapterbot history …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import REPORT, Config, Json
from adapterbot.cli.output import document, say

_history = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")
app.add_typer(_history, name="history")


@_history.callback()
def show(
    context: typer.Context,
    adapter: Annotated[
        str | None, typer.Option(help="Key of one adapter.", show_default="all")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=2, max=100, help="How many commits a trend goes back.")
    ] = 30,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show each metric's level, commit by commit, as a sparkline.

    ```console
    adapterbot history --adapter adapters-dates
    ```
    """
    if context.invoked_subcommand is not None:
        return
    from adapterbot.commands import history as command

    found = command.show(config, adapter, limit)
    if as_json:
        document(found.model_dump_json(indent=2))
        return
    from rich.console import Console

    from adapterbot.history.table import tables

    console = Console()
    for table in tables(found, console.width):
        console.print(table, crop=False)
    if not found.results:
        say(command.why_empty(config))


@_history.command()
def add(
    report: Annotated[Path, typer.Argument(help="The report.json of a gate.")] = REPORT,
    commit: Annotated[str, typer.Option(help="The commit that was judged.")] = "HEAD",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a report's results to the history: for a CI that is not GitHub's, or by hand.

    A gate on `push` does so itself.

    ```console
    adapterbot history add .adapterbot/report.json --commit main
    ```
    """
    from adapterbot.commands import history as command
    from adapterbot.commands.folders import left_here

    added = command.add(left_here(report, REPORT), config, commit)
    if as_json:
        document(json.dumps({"added": added}))
    else:
        say(f"added the results of {added} adapter{'' if added == 1 else 's'}")
