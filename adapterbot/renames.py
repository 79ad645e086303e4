"""Adapters that a change moves: the same one under another path keeps its key, its policy and what
it is compared with. Whoever renames a bad adapter must not gain by it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from adapterbot.config import AdapterConfig, key_of
from adapterbot.tree import Tree, normalise


def paired(start: Tree, head: Tree, gone: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Old path → new path, for each adapter that was moved.

    Those with a file in common first, the most of them; then the one that is left, when there is
    one on either side: a retrained adapter under a new name shares no file with its former self.

    Args:
        start: the tree in which `gone` still are.
        head: the tree in which `new` are.
    """
    before = {path: _contents(start, path) for path in gone}
    after = {path: _contents(head, path) for path in new}
    shared = sorted(
        (-len(before[old] & after[now]), old, now)
        for old in gone
        for now in new
        if before[old] & after[now]
    )
    found: dict[str, str] = {}
    for _, old, now in shared:
        if old not in found and now not in found.values():
            found[old] = now
    old_left = [path for path in gone if path not in found]
    new_left = [path for path in new if path not in found.values()]
    if len(old_left) == len(new_left) == 1:
        found[old_left[0]] = new_left[0]
    return found


def moved(adapter: AdapterConfig, to: str, head: Tree) -> AdapterConfig:
    """The adapter at its new path: same key and policy, compared with what it was."""
    old = normalise(adapter.path)

    def along(path: str) -> str:
        if normalise(path).startswith(f"{old}/") and not head.has(path):
            return to + normalise(path)[len(old) :]
        return path

    return adapter.model_copy(
        update={
            "path": to,
            "config": along(adapter.config),
            "lock": along(adapter.lock),
            "baseline": old if adapter.baseline == "base-ref" else adapter.baseline,
        }
    )


def with_own_keys(adapters: Sequence[AdapterConfig], taken: Collection[str]) -> list[AdapterConfig]:
    """No two under one key, and none under one that is taken: `a/b` and `a-b` would share one."""
    known = set(taken)
    found: list[AdapterConfig] = []
    for adapter in adapters:
        key = adapter.key
        if key in known:
            digest = hashlib.sha256(adapter.path.encode("utf-8", "surrogateescape")).hexdigest()
            key = key_of(f"{key[:88]}-{digest[:10]}")
        known.add(key)
        found.append(adapter if key == adapter.key else adapter.model_copy(update={"key": key}))
    return found


def _contents(tree: Tree, path: str) -> frozenset[str]:
    names = tree.files(path) if tree.has(path) else ()
    return frozenset(tree.sha256(name) for name in names)
