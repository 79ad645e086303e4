"""`adapterbot doctor`."""

from __future__ import annotations

import json

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import leave
from adapterbot.errors import ExitCode


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at this machine: Python, git, torch, GPU, disk. Says what to do about each lack.

    Exit codes: 0 all that is required is there, 3 something is not.
    """
    from adapterbot.commands import doctor as command

    findings = command.examine()
    if as_json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "missing" if finding.required else "note"
            fix = f"  → {finding.fix}" if finding.fix else ""
            typer.echo(f"{mark:<8}{finding.what:<14}{finding.found}{fix}")
    lacking = any(finding.required and not finding.ok for finding in findings)
    leave(ExitCode.FINDING if lacking else ExitCode.CLEAN)
