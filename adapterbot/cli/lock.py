"""`adapterbot lock …` and `adapterbot env lock`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json, SoupYaml
from adapterbot.cli.output import leave, say
from adapterbot.errors import ExitCode

lock_app = typer.Typer(help="soup.lock: pin base model, data and environment; check and explain.")
env_app = typer.Typer(help="The training environment that a lock pins.")
app.add_typer(lock_app, name="lock", no_args_is_help=True)
app.add_typer(env_app, name="env", no_args_is_help=True)


@lock_app.command("write")
def lock_write(
    config: SoupYaml = Path("soup.yaml"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup.lock"
    ),
    as_json: Json = False,
) -> None:
    """Pin what a training config names: base model, data and soup-env.lock.

    adapterbot lock write --config soup.yaml -o soup.lock
    """
    from adapterbot.commands import lock as command

    made = command.write(config, output)
    typer.echo(
        made.model_dump_json(indent=2) if as_json else f"{output}  closure {made.closure_sha}"
    )


@lock_app.command("show")
def lockshow(
    path: Annotated[Path, typer.Argument(help="The lock.")] = Path("soup.lock"),
    as_json: Json = False,
) -> None:
    """Print a lock, its closure verified.

    adapterbot lock show soup.lock
    """
    from adapterbot.commands import lock as command

    lock = command.read(path)
    if as_json:
        typer.echo(lock.model_dump_json(indent=2))
        return
    for name, value in lock.model_dump().items():
        typer.echo(f"{name:<16}{value}")
    say("the closure is the one of these three hashes")


@lock_app.command("check")
def lock_check(
    path: Annotated[Path, typer.Argument(help="The lock.")] = Path("soup.lock"),
    config: SoupYaml = Path("soup.yaml"),
    as_json: Json = False,
) -> None:
    """Compare a lock with the files beside it.

        adapterbot lock check soup.lock --config soup.yaml

    Exit codes: 0 unchanged, 2 a broken file, 3 drift.
    """
    from adapterbot.commands import lock as command
    from adapterbot.records import LockStatus

    result = command.check(path, config)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        for part in result.parts:
            tail = "" if part.ok else f"  locked {part.locked[:12]} now {part.now[:12]}"
            why = f"  {part.explanation}" if part.explanation else ""
            typer.echo(f"{'ok' if part.ok else 'drift':<7}{part.part:<16}{tail}{why}")
        if result.note:
            say(result.note)
    leave(ExitCode.CLEAN if result.status is LockStatus.OK else ExitCode.FINDING)


@env_app.command("lock")
def env_lock(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup-env.lock"
    ),
    as_json: Json = False,
) -> None:
    """Write soup-env.lock: every package that is installed beside this Python.

    adapterbot env lock -o soup-env.lock
    """
    from adapterbot.commands import lock as command

    found = command.write_environment(output)
    typer.echo(
        json.dumps({"path": str(output), "env_hash": found}) if as_json else f"{output}  {found}"
    )
