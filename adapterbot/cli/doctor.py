"""`adapterbot doctor`."""

from __future__ import annotations

import json

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, leave, line


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine, the repository and the token; say how to fix what is missing.

    ```console
    adapterbot doctor
    ```

    What the gate can do without is a note. Nothing is changed, here or on GitHub.

    Exit codes: 0 the gate can run; 1 this machine, 2 the repository or the token lacks something.
    """
    from adapterbot.commands import doctor as command
    from adapterbot.doctor import exit_code

    findings = command.run()
    if as_json:
        document(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            line(f"{finding.status:<8}{finding.what:<{width}}  {finding.found}")
            if finding.fix:
                line(f"{'':<8}{'':<{width}}  → {finding.fix}")
    leave(exit_code(findings))
