"""`adapterbot publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli import options
from adapterbot.cli.app import app
from adapterbot.cli.output import leave, show
from adapterbot.marker import DEFAULT_NAME
from adapterbot.publishing import CheckMode, CommentMode, CommentWhen, Publishing


@app.command()
def publish(
    report: Annotated[
        Path | None,
        typer.Option(
            envvar="ADAPTERBOT_REPORT",
            help="The report.json of a gate.",
            show_default="on workflow_run, the artifacts of that run",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(envvar="ADAPTERBOT_HEAD", help="Head commit, when answering a slash command."),
    ] = None,
    comment: options.CommentOption = CommentMode.UPDATE,
    comment_when: options.CommentWhenOption = CommentWhen.ALWAYS,
    check: options.CheckOption = CheckMode.AUTO,
    name: options.NameOption = DEFAULT_NAME,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Post a report that another job made: that job needs no token, this one no torch.

    ```console
    adapterbot publish --report report.json
    ```

    Exit codes: as `gate`, from the verdict in the report.
    """
    from adapterbot.commands import publish as command
    from adapterbot.commands.report_files import exit_code

    publishing = Publishing(comment, comment_when, check, name)
    written = command.run(report, out, publishing, head=head)
    show(written, as_json)
    leave(exit_code(written.report))
