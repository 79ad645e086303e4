"""`adapterbot lock …` and `adapterbot env lock`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapterbot.cli.app import app
from adapterbot.cli.options import Json
from adapterbot.cli.output import document, leave, line, say
from adapterbot.errors import ExitCode

if TYPE_CHECKING:
    from adapterbot.lock.check import Check

lock_app = typer.Typer(
    help="Write, check and explain soup.lock, which pins base model, data and environment."
)
env_app = typer.Typer(help="The training environment that a lock pins.")
app.add_typer(lock_app, name="lock", no_args_is_help=True)
app.add_typer(env_app, name="env", no_args_is_help=True)

BaseModel = Annotated[
    str | None, typer.Option(help="Name of the base model.", show_default="base in soup.yaml")
]
BaseSha = Annotated[
    str | None,
    typer.Option(help="SHA-256 of the base model.", show_default="computed from its files"),
]
DatasetSha = Annotated[
    str | None, typer.Option(help="SHA-256 of the dataset.", show_default="computed from its files")
]
EnvHash = Annotated[
    str | None,
    typer.Option(help="SHA-256 of the environment.", show_default="computed from soup-env.lock"),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Hash every file, even those that have not changed.")
]
SoupYaml = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        readable=False,
        help="The training config.",
        show_default="soup.yaml beside the lock, else here",
    ),
]
LockPath = Annotated[Path, typer.Argument(readable=False, help="The lock.")]


@lock_app.command("write")
def lock_write(
    config: SoupYaml = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup.lock"
    ),
    base_model: BaseModel = None,
    base_sha: BaseSha = None,
    dataset_sha: DatasetSha = None,
    env_hash: EnvHash = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            help="Adapter directory to record. Repeatable.", show_default="output in soup.yaml"
        ),
    ] = None,
    rows: Annotated[
        bool,
        typer.Option(
            "--rows",
            help="Record a digest of every row, so that a later drift can be counted by row.",
        ),
    ] = False,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Pin what a training config names: base model and data, with soup-env.lock.

    ```console
    adapterbot lock write --config soup.yaml -o soup.lock
    ```

    Everything is computed. A hash given as an option replaces the computed one; with all four
    options no config is needed:

    ```console
    adapterbot lock write --base-model org/model --base-sha … --dataset-sha … --env-hash …
    ```
    """
    from adapterbot.commands import lock as command

    made = command.write(
        config or command.config_of(output),
        output,
        given=command.given(base_model, base_sha, dataset_sha, env_hash),
        adapters=adapter or None,
        rows=rows,
        cache=command.open_cache(used=not no_cache),
    )
    if as_json:
        document(json.dumps(asdict(made)))
    else:
        line(f"{output}  closure {made.closure_sha}")


@lock_app.command("show")
def lock_show(path: LockPath = Path("soup.lock"), as_json: Json = False) -> None:
    """Print a lock, and verify its closure.

    ```console
    adapterbot lock show soup.lock
    ```

    Exit codes: 0 the closure is right, 2 a broken file.
    """
    from adapterbot.commands import lock as command

    lock = command.read(path)
    if as_json:
        document(json.dumps(asdict(lock), indent=2))
        return
    for name, value in asdict(lock).items():
        line(f"{name:<16}{value}")
    say("closure verified: it is the one of these three hashes")


@lock_app.command("check")
def lock_check(
    path: LockPath = Path("soup.lock"),
    config: SoupYaml = None,
    base_model: BaseModel = None,
    base_sha: BaseSha = None,
    dataset_sha: DatasetSha = None,
    env_hash: EnvHash = None,
    no_cache: NoCache = False,
    as_json: Json = False,
) -> None:
    """Compare a lock with the files beside it.

    ```console
    adapterbot lock check soup.lock --config soup.yaml
    ```

    A hash given as an option replaces the computed one. On a GitHub runner a drift is also
    annotated on the line of soup.yaml that it concerns.

    Exit codes: 0 unchanged, 1 we failed, 2 a broken file, 3 drift.
    """
    from adapterbot.commands import lock as command

    found = command.check(
        path,
        config or command.config_of(path),
        given=command.given(base_model, base_sha, dataset_sha, env_hash),
        cache=command.open_cache(used=not no_cache),
    )
    if as_json:
        document(json.dumps(asdict(found), indent=2))
    else:
        _print(found, path)
    if os.environ.get("GITHUB_ACTIONS") == "true" and found.status != "ok":
        from adapterbot.commands.notes import drift_notes
        from adapterbot.gh.workflow import Level, annotation

        for note in drift_notes(found.record(), Level.ERROR):
            typer.echo(annotation(note), err=True)
    leave(ExitCode.CLEAN if found.status == "ok" else ExitCode.FINDING)


def _print(found: Check, path: Path) -> None:
    from adapterbot.lock.schema import rewriting

    for part in found.parts:
        word = "ok" if part.ok else "note" if part.advisory else "drift"
        moved = "" if part.ok else f"  {_short(part.locked)} → {_short(part.now)}"
        why = f"  {part.explanation}" if part.explanation else ""
        line(f"{word:<7}{part.part:<16}{moved}{why}".rstrip())
    if found.note:
        say(found.note)
    if found.status == "drift":
        rewrite = rewriting(str(path))
        say(f"to do: `{rewrite}`, if the run was trained from what is here now")


def _short(value: str) -> str:
    return value[:12] if len(value) == 64 else value


@env_app.command("lock")
def env_lock(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "soup-env.lock"
    ),
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            readable=False,
            help="Read uv.lock, pylock.toml or requirements.txt.",
            show_default="what this Python has installed",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write soup-env.lock: every package that is installed beside this Python, or that the
    project's own lock file pins.

    ```console
    adapterbot env lock -o soup-env.lock
    adapterbot env lock --from uv.lock
    ```
    """
    from adapterbot.commands import lock as command

    found = command.write_environment(output, source)
    if as_json:
        document(json.dumps({"path": str(output), "env_hash": found}))
    else:
        line(f"{output}  {found}")
