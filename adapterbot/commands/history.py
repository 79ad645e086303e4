"""`adapterbot history`, and what a gate reads from it and adds to it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from adapterbot.changes.sides import config_of
from adapterbot.commands import place as places
from adapterbot.commands.report_files import read_report
from adapterbot.config import CONFIG_FILES, HistoryConfig
from adapterbot.context import server_url
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.tree import WorkTree
from adapterbot.gh.access import client_for
from adapterbot.gh.purpose import Purpose
from adapterbot.git.commits import resolve_commit
from adapterbot.git.program import git
from adapterbot.git.tree import GitTree
from adapterbot.history.branch import REMOTE, Branch
from adapterbot.history.database import Database
from adapterbot.history.results import of_report, trends
from adapterbot.judging.subjects import digest_at
from adapterbot.pr.inputs import about_these
from adapterbot.records import Report
from adapterbot.records.history import History, PastResult

# What SQLite reads along with its file.
_BESIDE = ("-journal", "-wal", "-shm")
_FIX = "add `history:` with a `branch:` or a `file:` to adapterbot.yaml"


def read(config: HistoryConfig, root: Path) -> tuple[PastResult, ...]:
    """Every kept result, oldest first.

    Raises:
        InputError: what is there is no history.
    """
    return _store(config, root).read()


def keep(
    config: HistoryConfig,
    root: Path,
    report: Report,
    commit: str,
    environment: Mapping[str, str],
) -> int:
    """Add a report's results under a commit; how many there were.

    Raises:
        AdapterbotError: they could not be written, or pushed.
    """
    when = int(git(root, "show", "-s", "--format=%ct", commit).decode().split()[-1])
    results = of_report(report, commit, min(when, int(time.time())))
    store = _store(config, root)
    if not results:
        return 0
    if isinstance(store, Database):
        store.append(results)
    else:
        from adapterbot.gh.remote import Remote

        url = git(root, "remote", "get-url", REMOTE).decode().strip()
        # By hand, git knows itself how its user pushes.
        on_runner = environment.get("GITHUB_ACTIONS") == "true"
        server = f"{server_url(environment)}/"
        remote = Remote()
        if on_runner and url.startswith(server):
            repository = url.removeprefix(server).removesuffix(".git")
            remote = Remote(url, client_for(repository, environment, Purpose.PUSH).token)
        store.append(results, remote.environment(), f"Results of {commit[:12]}")
    return len(results)


def _store(config: HistoryConfig, root: Path) -> Database | Branch:
    if config.file is not None:
        return Database(_nobodys(root, config.file))
    return Branch(root, config.branch or "")


def _nobodys(root: Path, file: str) -> Path:
    """Where a history file is, unless it comes with the checkout: a pull request would write it."""
    place = Path(os.path.normpath(root / file))
    if not place.is_relative_to(root):  # by name
        place = there.real(place)
    if place.is_relative_to(root):
        inside = place.relative_to(root).as_posix()
        WorkTree(root).has(inside)  # refuses links
        mine = [f":(literal){inside}{suffix}" for suffix in ("", *_BESIDE)]
        if git(root, "ls-files", "-z", "--", *mine):
            raise InputError(
                "is a file of this repository, which a pull request could write",
                file=file,
                field="history.file",
                fix="name one outside of it, or remove it from Git",
            )
    return place


# ---------------------------------------------------------------- the command


def show(config_path: str | None, adapter: str | None, limit: int) -> History:
    """The history of this checkout's repository.

    Args:
        adapter: the key of one adapter; all of them when None.
        limit: how many of each adapter's last results its trends hold.

    Raises:
        InputError: none is configured, or it knows no such adapter.
    """
    root = places.checkout()
    results = read(_required(root, config_path), root)
    keys = list(dict.fromkeys(result.adapter for result in results))
    if adapter is not None and adapter not in keys:
        raise InputError(
            f"{adapter!r} has no results in the history",
            field="--adapter",
            fix=f"name one of {', '.join(keys)}" if keys else "add results first",
        )
    chosen = [adapter] if adapter else keys
    return History(
        adapters={key: trends(results, key, limit) for key in chosen},
        results=tuple(result for result in results if result.adapter in chosen),
    )


def why_empty(config_path: str | None) -> str:
    """What there is to say where `show` found no result."""
    root = places.checkout()
    config = _required(root, config_path)
    store = _store(config, root)
    if isinstance(store, Database) or store.is_known():
        return "the history holds no results yet"
    fetch = f"git fetch {REMOTE} +refs/heads/{store.name}:refs/remotes/{REMOTE}/{store.name}"
    return f"this clone has no branch {store.name}; if {REMOTE} has one, fetch it: `{fetch}`"


def add(
    report_path: Path,
    config_path: str | None,
    commit: str,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Add a report by hand, for a CI that is not GitHub's; how many results it had.

    Raises:
        AdapterbotError: no history is configured, the report is about other weights than the
            commit holds, or it cannot be written.
    """
    root = places.checkout()
    config = _required(root, config_path)
    sha = resolve_commit(root, commit)
    report = read_report(report_path)
    tree = GitTree(root, sha)
    for adapter in report.adapters:
        if adapter.metrics and adapter.problem is None:
            digest, these = digest_at(tree, adapter.adapter), f"those at {tree.label}"
            about_these(adapter, digest, file=report_path, these=these)
    return keep(config, root, report, sha, environment)


def _required(root: Path, config_path: str | None) -> HistoryConfig:
    config = config_of(WorkTree(root), config_path)
    if config is None or config.history is None:
        raise InputError("no history is kept", file=config_path or CONFIG_FILES[0], fix=_FIX)
    return config.history
