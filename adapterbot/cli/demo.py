"""`adapterbot demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import leave, say, show
from adapterbot.errors import ExitCode


@app.command()
def demo(
    directory: Annotated[
        Path | None,
        typer.Argument(help="Folder to build the repository in.", show_default="a temporary one"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Gate a bad pull request in a repository made on the spot. No account, no GPU, no network.

    ```console
    adapterbot demo
    ```

    Exit codes: 0 it found the checkpoint that broke it, 1 it did not, 2 bad input.
    """
    from adapterbot.commands import demo as command
    from adapterbot.commands.report_files import exit_code

    written = command.run(directory, say)
    show(written, as_json)
    # A regression is what the demo is there to show: finding where it broke is success.
    if command.found_the_break(written.report):
        leave(ExitCode.CLEAN)
    leave(max(exit_code(written.report), ExitCode.FAILURE))
