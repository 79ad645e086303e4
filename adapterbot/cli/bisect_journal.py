"""`adapterbot bisect log` and `bisect replay`: what a search left in its journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.bisect import bisect_app, tell, tell_steps
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, leave

JournalPath = Annotated[Path, typer.Argument(help="Journal of a search.")]
_JOURNAL = Path(".adapterbot/bisect.journal")


@bisect_app.command("log")
def bisect_log(journal: JournalPath = _JOURNAL, as_json: Json = False) -> None:
    """Show the probes of a search, in the order in which they were made.

    ```console
    adapterbot bisect log .adapterbot/bisect.journal
    ```
    """
    from adapterbot.commands import bisect_command
    from adapterbot.commands.folders import left_here

    found = bisect_command.replay(left_here(journal, _JOURNAL))
    if as_json:
        steps = [step.model_dump(mode="json") for step in found.steps]
        document(json.dumps({"version": 1, "steps": steps}, indent=2))
    else:
        tell_steps(found)


@bisect_app.command("replay")
def bisect_replay(journal: JournalPath = _JOURNAL, as_json: Json = False) -> None:
    """Compute the result of a search again, from its probes.

    ```console
    adapterbot bisect replay .adapterbot/bisect.journal
    ```

    Exit codes: those of the search itself.
    """
    from adapterbot.commands import bisect_command
    from adapterbot.commands.folders import left_here

    found = bisect_command.replay(left_here(journal, _JOURNAL))
    tell(found, as_json)
    leave(bisect_command.exit_code(found.verdict))
