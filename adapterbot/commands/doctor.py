"""`adapterbot doctor`: the machine, the repository around us and the token, looked at in turn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from adapterbot.commands.evaluator import cache_directory
from adapterbot.commands.origin import repository_at
from adapterbot.commands.place import checkout
from adapterbot.context import server_url
from adapterbot.doctor import Finding
from adapterbot.doctor.finding import note
from adapterbot.doctor.github import token
from adapterbot.doctor.machine import machine
from adapterbot.doctor.repository import Repository, examine, repository
from adapterbot.errors import AdapterbotError, InputError


def run(environment: Mapping[str, str] = os.environ) -> tuple[Finding, ...]:
    """Look at everything, the quick things first."""
    return tuple(_findings(environment))


def _findings(environment: Mapping[str, str]) -> Iterator[Finding]:
    where: Repository | None = None
    outside = ""
    try:
        where = repository(checkout())
    except AdapterbotError as error:
        outside = str(error)
    caches = {}
    with suppress(InputError):  # a user without a home
        caches["scores kept in"] = cache_directory(environment)
    with suppress(RuntimeError):
        models = environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        caches["models kept in"] = Path(models)
    yield from machine(
        caches,
        evaluates=where is None or where.evaluates_here,
        keyless=where is not None and where.trusts_workflows,
    )
    if where is None:
        yield note(
            "repository", outside[:500], "run it again inside of the repository that is to be gated"
        )
    else:
        yield from examine(where, environment)
    name = environment.get("GITHUB_REPOSITORY", "")
    if where is not None and not name:
        with suppress(AdapterbotError):  # it is on another server than the API
            name = repository_at(where.tree.root, server_url(environment))
    yield from token(environment, name)
