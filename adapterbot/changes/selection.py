"""Which adapters a comparison is about: those that the head changes, moves, adds or removes.

A head must not choose what is looked at: what no configuration lists is found by its files, and
what cannot be read counts as changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from adapterbot import lock
from adapterbot.changes.conventions import (
    DECIDING,
    MIXTURE_CONFIG,
    adapter_directories,
    discover,
    for_adapter,
    with_own_keys,
)
from adapterbot.changes.disguises import disguised
from adapterbot.changes.mixtures import experts, readable_experts
from adapterbot.changes.renames import moved, moved_as_it_was, paired, refuse_swapped
from adapterbot.changes.sides import Sides, config_of, same
from adapterbot.config import AdapterConfig, Config
from adapterbot.errors import InputError
from adapterbot.files.paths import check_text, join, normalise
from adapterbot.files.tree import Tree
from adapterbot.files.yamlfile import nearest
from adapterbot.lock.dataset import is_note
from adapterbot.records.report import MAX_ADAPTERS
from adapterbot.weights.peft_dir import CONFIG_NAME

_TEXTS = frozenset({"", ".md", ".rst", ".txt"})


@dataclass(frozen=True)
class Overrides:
    """What a person asked for by hand; None leaves the config's word."""

    adapter: str | None = None
    suite: str | None = None
    baseline: str | None = None
    archive: str | None = None
    sequential: bool = False


def select(
    where: Sides, overrides: Overrides, say: Callable[[str], None] = lambda _: None
) -> tuple[AdapterConfig, ...]:
    """The adapters to gate: the one that was named, else those that the head changes.

    Args:
        say: is told of each adapter that changed and that no suite judges.

    Raises:
        InputError: there is none to choose from, or several and no config.
    """
    files = where.head.survey()
    if overrides.adapter:
        chosen = [_named(where, normalise(overrides.adapter, field="--adapter"), files)]
    else:
        chosen = _changed_here(where, where.config or _discover(where, files), files)
        chosen = [one for one in chosen if _has_suite(where, one, overrides.suite, say)]
    update = {
        name: value
        for name, value in (
            ("suite", overrides.suite),
            ("baseline", overrides.baseline),
            ("archive", overrides.archive),
        )
        if value
    }
    found = tuple(adapter.model_copy(update=update) for adapter in chosen)
    return tuple(map(_sequential, found)) if overrides.sequential else found


def named_adapter(where: Sides, path: str) -> AdapterConfig:
    """The adapter of a search, as it was named by hand.

    Raises:
        InputError: the configuration does not list it, and the head holds nothing there.
    """
    found = for_adapter(where.config, path, where.head.survey())
    listed = [adapter.path for adapter in where.config.adapters] if where.config else []
    if found.path in listed or where.head.has(found.path):
        return found
    raise InputError(
        f"{path} is no adapter of {where.head.label}{nearest(found.path, listed)}",
        field="--adapter",
        fix=f"name one of {', '.join(listed[:8])}" if listed else "name an adapter directory",
    )


def _has_suite(
    where: Sides, adapter: AdapterConfig, suite: str | None, say: Callable[[str], None]
) -> bool:
    """Whether there is a suite for an adapter. Only an unlisted one that was there before may lack
    one: an example, or an adapter that is kept aside."""
    listed = {entry.key for entry in where.config.adapters} if where.config else {adapter.key}
    is_other = adapter.key not in listed and _is_there(where.fork_point, normalise(adapter.path))
    if suite or not is_other or where.base.has(adapter.suite):
        return True
    say(
        f"{adapter.path} changes and is not judged: no configuration lists it, and the base branch "
        f"has no {adapter.suite}"
    )
    return False


def _sequential(adapter: AdapterConfig) -> AdapterConfig:
    policy = adapter.policy.model_copy(update={"sequential": True})
    return adapter.model_copy(update={"policy": policy})


def _discover(where: Sides, files: Sequence[str]) -> Config:
    """The adapter of a repository without a config: the one that the base has, so that moving it
    does not change what it is compared with."""
    at_base = where.base.survey()
    found = discover(at_base if adapter_directories(at_base) else files)
    (adapter,) = found.adapters
    return found.model_copy(update={"adapters": (_with_own_archive(adapter, files),)})


def _named(where: Sides, path: str, files: Sequence[str]) -> AdapterConfig:
    """The entry of one adapter. An unlisted one gets the suite and the training config that the
    base has around it: the head could put others nearer by."""
    if where.config and path in {normalise(entry.path) for entry in where.config.adapters}:
        return for_adapter(where.config, path, files)
    if not where.base.has(path):
        return for_adapter(None, path, files)
    return _with_own_archive(for_adapter(None, path, where.base.survey()), files)


def _with_own_archive(adapter: AdapterConfig, files: Sequence[str]) -> AdapterConfig:
    """With the head's checkpoints, which are of its own run."""
    archive = for_adapter(None, adapter.path, files).archive
    return adapter.model_copy(update={"archive": archive})


def _changed_here(where: Sides, config: Config, files: Sequence[str]) -> list[AdapterConfig]:
    """The listed adapters that the head changes or moves, those that it adds, and the unlisted ones
    whose own files it changes.

    Unlisted ones are judged under the default policy: whoever adds an adapter must not decide
    whether it is looked at, nor add one that passes and replace it later.
    """
    listed = {normalise(adapter.path): adapter for adapter in config.adapters}
    here = _directories(where, files)
    # Whether the folder is new does not matter: it may have held something else before.
    before = set(_directories(where, where.fork_point.survey()))
    new = [
        path
        for path in here
        if path not in listed and path not in before and not _is_ignored(where, path)
    ]
    # Nor does a name like a checkpoint's, if the head itself lists it as an adapter.
    new += [
        path
        for path in sorted(_head_lists(where) or ())
        if path not in {*listed, *here}
        and _is_there(where.head, path)
        and not _is_there(where.fork_point, path)
    ]
    for path in new:
        check_text(path)
    gone = [
        path
        for path, adapter in listed.items()
        if not adapter.is_bank and where.fork_point.has(path) and not _is_there(where.head, path)
    ]
    renamed = paired(where.fork_point, where.head, gone, new)
    refuse_swapped(where.fork_point, where.head, renamed, listed)
    refused = disguised(where, listed)
    chosen = [
        moved(adapter, renamed[path], where.head) if path in renamed else adapter
        for path, adapter in listed.items()
        if path in renamed or path in refused or _changed(where, adapter, _nested_in(path, here))
    ]
    chosen += _moved_on_base(where, listed, chosen)
    unlisted = [for_adapter(None, path, files) for path in new if path not in renamed.values()]
    unlisted += [_named(where, path, files) for path in _strays(where, listed, here, before)]
    chosen += with_own_keys(unlisted, {adapter.key for adapter in config.adapters})
    if len(chosen) > MAX_ADAPTERS:
        raise InputError(
            f"changes {len(chosen)} adapters, more than the {MAX_ADAPTERS} of one report",
            file="the head",
            fix="split it, gate them by name, one job each, with --adapter, or, if they are "
            "checkpoints, name them as an `archive` in adapterbot.yaml on the base branch first",
        )
    return chosen


def _strays(
    where: Sides, listed: Mapping[str, AdapterConfig], here: Sequence[str], before: Collection[str]
) -> list[str]:
    """The unlisted adapters that were there before and of which the head changes a file. Experts of
    a listed mixture are judged with it; what the base has renamed to a listed one, as that one."""
    gained = any(_gained(where, path) for path in listed)
    held = {part for path in listed for part in readable_experts(where.fork_point, path)}
    others = set(here).intersection(before) - {*listed, *held}
    stayed = [path for path in here if path in others and (where.base.has(path) or not gained)]
    refused = disguised(where, stayed)
    return [path for path in stayed if path in refused or not _is_as_it_was(where, path)]


def _is_as_it_was(where: Sides, path: str) -> bool:
    start, head = where.fork_point, where.head
    try:
        parts = (path, *readable_experts(start, path))
        return all(same(start, head, join(part, name)) for part in parts for name in DECIDING)
    except InputError:
        return False


def _moved_on_base(
    where: Sides, listed: Mapping[str, AdapterConfig], chosen: Sequence[AdapterConfig]
) -> list[AdapterConfig]:
    """Where the head changes an adapter that the base has since removed: the listed ones that the
    base has since gained. Git follows renames, so a merge would put the change into one of these,
    into the one that shares files with it if any does. Judging them tells the author to merge."""
    since = {
        path: adapter
        for path, adapter in listed.items()
        if adapter not in chosen and _gained(where, path)
    }
    if not since:
        return []
    files = where.fork_point.survey()
    before = _directories(where, files)
    former = [path for path in before if not _is_there(where.base, path)]
    refused = disguised(where, former)
    touched = [
        path
        for path in former
        if path in refused
        or _changed(where, for_adapter(None, path, files), _nested_in(path, before))
    ]
    try:
        became = paired(where.fork_point, where.base, former, [*since]) if touched else {}
    except InputError:  # a link in one of them
        became = {}
    known = became.keys() >= set(touched)
    return [since[became[path]] for path in touched] if known else [*since.values()]


def _gained(where: Sides, path: str) -> bool:
    """Whether the base got an adapter after the head branched off, which has none there."""
    return where.base.has(path) and not (where.fork_point.has(path) or where.head.has(path))


def _directories(where: Sides, files: Sequence[str]) -> list[str]:
    """As `adapter_directories`, by the names that listed adapters go by: the root is ""."""
    return [normalise(path) for path in adapter_directories(files, where.config)]


def _is_ignored(where: Sides, path: str) -> bool:
    above = (
        f"{folder.as_posix()}/" for folder in (PurePosixPath(path), *PurePosixPath(path).parents)
    )
    return not where.ignored.isdisjoint(
        (*above, join(path, CONFIG_NAME), join(path, MIXTURE_CONFIG))
    )


def _nested_in(path: str, directories: Sequence[str]) -> tuple[str, ...]:
    """The adapter directories below an adapter's own: they are other adapters."""
    prefix = f"{path}/" if path else ""
    return tuple(other for other in directories if other != path and other.startswith(prefix))


def removed(where: Sides, adapter: AdapterConfig) -> bool:
    """Whether the head takes an adapter away, and says so: no config of it lists the adapter, and
    no adapter is new that could be the same one under another name. One that only moved is not."""
    path = normalise(adapter.path)
    trees = (where.fork_point, where.head)
    before, here = (set(_directories(where, tree.survey())) for tree in trees)
    others = before - here - {path}
    new = [
        now
        for now in here - before
        if not any(moved_as_it_was(where.fork_point, old, where.head, now) for old in others)
    ]
    if new or not where.fork_point.has(path) or _is_there(where.head, path):
        return False
    listed = _head_lists(where)
    return listed is not None and path not in listed


def _head_lists(where: Sides) -> set[str] | None:
    """The adapters in the head's own adapterbot.yaml, none where it has no such file; None where
    it cannot be read."""
    name = next((name for name in where.config_names if where.head.has(name)), None)
    try:
        config = config_of(where.head, name) if name else None
    except InputError:
        return None
    return {normalise(entry.path) for entry in config.adapters} if config else set()


def _is_there(tree: Tree, path: str) -> bool:
    """Whether a path is a bank, or holds an adapter, whatever a search makes of its name."""
    try:
        found = tree.files(path)
    except InputError:
        return True  # a link in its place or above it, which judging it will name
    own = {path, join(path, CONFIG_NAME), join(path, MIXTURE_CONFIG)}
    return not own.isdisjoint(found)


def changed(where: Sides, adapter: AdapterConfig) -> bool:
    """Whether the head changes an adapter that was named, or what it is made from."""
    here = _directories(where, where.head.survey())
    return _changed(where, adapter, _nested_in(normalise(adapter.path), here))


def _changed(where: Sides, adapter: AdapterConfig, nested: Sequence[str]) -> bool:
    """Whether the head changes the adapter, or what it is made from: configs, locks, data, base.

    What cannot be read counts as changed, so that judging it says why. Of what Git holds under one
    id on both sides nothing is read: it may be gigabytes of data.
    """
    start, head = where.fork_point, where.head
    try:
        before, after = (_made_from(tree, adapter, where, nested) for tree in (start, head))
        return before != after or not all(same(start, head, name) for name in before)
    except InputError:
        return True


def _is_for_people(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    return is_note(base) and PurePosixPath(base).suffix in _TEXTS


def _made_from(tree: Tree, adapter: AdapterConfig, where: Sides, nested: Sequence[str]) -> set[str]:
    made_of = (adapter.path, *experts(tree, adapter.path), adapter.config, adapter.lock)
    found = {
        name
        for path in made_of
        if tree.has(path)
        for name in tree.files(path)
        if not (name.startswith(tuple(f"{other}/" for other in nested)) or _is_for_people(name))
    }
    if tree.has(adapter.config):
        found |= lock.files_in_tree(tree, adapter.config, allowed_base=where.allowed_base)
    return found
