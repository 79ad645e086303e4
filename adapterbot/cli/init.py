"""`adapterbot init`."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, leave, line, say
from adapterbot.errors import ExitCode

_LABELS = "self-hosted,gpu"


@app.command()
def init(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; print what would change as a diff.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Overwrite an existing workflow, but never a configuration or suite: remove those "
            "to have them written anew.",
        ),
    ] = False,
    runs_on: Annotated[
        str, typer.Option(help="Labels of the runner that evaluates, comma-separated.")
    ] = _LABELS,
    action: Annotated[
        str,
        typer.Option(help="The action to use, as owner/name@ref. A tag is pinned to its commit."),
    ] = "org/adapter-action@v1",
    as_json: Json = False,
) -> None:
    """Set up a repository: write the configuration, a starter suite and the workflow.

    ```console
    adapterbot init
    ```

    The suite's rows come from the validation file that soup.yaml names; without one, they are moved
    out of the training data. Existing files stay. Without a terminal it asks nothing.

    Exit codes: 0 written, or nothing to write; 1 we failed; 2 nothing here to gate.
    """
    from adapterbot.commands import init as command
    from adapterbot.init import Wanted

    asks = not (yes or dry_run or as_json) and sys.stdin.isatty()
    if asks:
        runs_on = typer.prompt("Labels of the runner that evaluates", default=runs_on, err=True)
    found, was = command.pinned(action, os.environ)
    labels = tuple(label.strip() for label in runs_on.split(",") if label.strip())
    root, planned = command.prepare(Wanted(labels, found, was, force))
    result = json.dumps(command.document(root, planned, found), indent=2)
    if dry_run:
        if as_json:
            document(result)
        else:
            sys.stdout.write("".join(command.differences(root, planned)))  # as git apply takes it
        leave(ExitCode.CLEAN)
    for name in planned.kept:
        say(f"keep     {name}")
    for name in sorted(planned.files):
        say(f"{'change' if (root / name).exists() else 'create':<9}{name}")
    for note in planned.notes:
        say(f"note: {note}")
    if asks and planned.files:
        typer.confirm("Write these files?", default=True, abort=True, err=True)
    command.write(root, planned)
    if as_json:
        document(result)
        return
    say("next:")
    for command_line in planned.commands:
        line(f"  {command_line}")
    say("then have it merged: the next pull request that changes an adapter gets its comment")
