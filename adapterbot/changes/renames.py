"""Adapters that a change moves: the same one under another path keeps its key, its policy and what
it is compared with. Whoever renames a bad adapter must not gain by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from adapterbot.changes.conventions import DECIDING, for_adapter
from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree

_WHERE = {"path", "key", "config", "lock", "archive", "archive_data"}


def paired(start: Tree, head: Tree, gone: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Old path → new path, for each adapter that was moved.

    Pairs with files in common come first, those that share most before the others; then the last
    one left on either side, since an adapter that was retrained under a new name shares no file
    with its former self.

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


def refuse_swapped(
    start: Tree, head: Tree, renamed: Mapping[str, str], listed: Mapping[str, AdapterConfig]
) -> None:
    """Refuses to guess which adapter became which, where several move and change at once and are
    not judged alike: a file in common would choose the laxer policy.

    Raises:
        InputError: they do.
    """
    changed = {
        old: now for old, now in renamed.items() if not moved_as_it_was(start, old, head, now)
    }
    judged = [listed[old].model_dump(exclude=_WHERE) for old in changed]
    if any(one != judged[0] for one in judged):
        shown = ", ".join(sorted(changed)[:3])
        raise InputError(
            f"moves and changes several adapters at once ({shown}), which are judged by different "
            "policies or suites: which became which cannot be told",
            file="the head",
            fix="move them in one pull request, and change them in another",
        )


def moved(adapter: AdapterConfig, to: str, head: Tree) -> AdapterConfig:
    """The adapter at its new path: same key and policy, compared with what it was."""
    old = normalise(adapter.path)
    folders = tuple(_renamed_folders(old, to))

    def along(path: str) -> str:
        name = normalise(path)
        if head.has(path):
            return path
        places = [f"{now}{name[len(was) :]}" for was, now in folders if name.startswith(was)]
        # What is in the adapter's own folder has nowhere else to be.
        nowhere = places[0] if name.startswith(f"{old}/") else path
        return next((place for place in places if head.has(place)), nowhere)

    return adapter.model_copy(
        update={
            "path": to or ".",
            "config": along(adapter.config),
            "lock": along(adapter.lock),
            "baseline": old if adapter.baseline == "base-ref" else adapter.baseline,
        }
    )


def former(where: Sides, adapter: AdapterConfig) -> AdapterConfig:
    """The adapter as the base branch has it: the head may have moved it, and its config along."""
    for entry in where.config.adapters if where.config else ():
        if entry.key == adapter.key:
            return entry
    if adapter.baseline in ("none", "base-ref") or where.head.has(adapter.baseline):
        return adapter
    return for_adapter(None, adapter.baseline, where.base.survey())


def moved_as_it_was(start: Tree, old: str, head: Tree, new: str) -> bool:
    """Whether an adapter lies under a new path with all its deciding files, and no others, as they
    were."""
    before, after = (
        {
            name[len(path) :]: tree.sha256(name)
            for name in tree.files(path)
            if name.endswith(DECIDING)
        }
        for tree, path in ((start, old), (head, new))
    )
    return before == after


def _renamed_folders(old: str, new: str) -> Iterator[tuple[str, str]]:
    """The adapter's folder and those above it that were renamed with it, each with its new name, as
    `folder/`, or nothing for the root: `a/x/lora` → `b/x/lora` renamed `a/x/` and `a/`."""
    before, after = PurePosixPath(old), PurePosixPath(new)
    yield _prefix(before), _prefix(after)
    while before.name and before.name == after.name:
        before, after = before.parent, after.parent
        yield _prefix(before), _prefix(after)


def _prefix(folder: PurePosixPath) -> str:
    return "" if folder == PurePosixPath() else f"{folder}/"


def _contents(tree: Tree, path: str) -> frozenset[str]:
    names = tree.files(path) if tree.has(path) else ()
    return frozenset(tree.sha256(name) for name in names)
