"""`adapterbot answer`."""

from __future__ import annotations

import json
from dataclasses import asdict

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, say


@app.command()
def answer(as_json: Json = False) -> None:
    """Read the `/adapterbot …` comment that started this workflow, and output what it asks for.

    ```console
    adapterbot answer --json
    ```

    Only on a runner, on `issue_comment`. Exit codes: 0 read, also when it was refused; 1 we
    failed; 2 bad input.
    """
    from adapterbot.commands import answer as command

    found = command.run()
    if as_json:
        document(json.dumps(asdict(found)))
    else:
        say(f"asked for: {found.asked or 'nothing'}")
