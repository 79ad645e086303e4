"""Refuses an adapter if what the head holds of it is not what a merge would make of it."""

from __future__ import annotations

from dataclasses import replace

from adapterbot.changes.conventions import DECIDING, MIXTURE_CONFIG
from adapterbot.changes.mixtures import readable_experts
from adapterbot.changes.renames import former
from adapterbot.changes.selection import changed
from adapterbot.changes.sides import Sides, same
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.files.paths import join, normalise
from adapterbot.weights.peft_dir import CONFIG_NAME

_TEXTS = (CONFIG_NAME, MIXTURE_CONFIG)  # which Git merges line by line
_FIX = "merge the base branch into this one, or rebase on it"


def as_merged(where: Sides, adapter: AdapterConfig) -> Sides:
    """The sides, with the base's tip as the head where only the base branch has changed the adapter
    since the head left it: a merge would leave it as it is there."""
    now = where.base
    if where.fork_point is now or not all(t.has(adapter.path) for t in (now, where.head)):
        return where
    if changed(where, adapter) or not changed(replace(where, fork_point=now), adapter):
        return where
    note = "changed on the base branch alone, and judged as it is there: so a merge would leave it"
    return replace(where, head=now, fork_point=now, notes=(*where.notes, note))


def refuse_stale(where: Sides, adapter: AdapterConfig) -> None:
    """Refuses an adapter that the base branch has moved, added, removed or changed since the head
    left it: what the head holds is neither what a merge would make, nor comparable with the base.
    Where both replaced the weights it is judged: a merge conflicts.

    Raises:
        InputError: it is one.
    """
    path = normalise(adapter.path)
    where.head.files(path)  # which refuses a link above it
    _refuse_disputed(where, adapter)
    before, base, head = (t.has(path) for t in (where.fork_point, where.base, where.head))
    if before != base and head != base:
        raise InputError(
            f"does not exist in {where.head.label}; the base branch has it since this one left it"
            if base
            else f"is no longer on the base branch, which {where.head.label} left before",
            file=path,
            fix=_FIX,
        )
    was = path if before else normalise(former(where, adapter).path)
    for name in DECIDING:
        if _would_mix(where, join(was, name), join(path, name)):
            raise InputError(
                f"changed on the base branch since {where.head.label} left it, so a merge makes "
                "another adapter than the one here",
                file=join(was, name),
                fix=_FIX,
            )


def _refuse_disputed(where: Sides, adapter: AdapterConfig) -> None:
    """Refuses an adapter of which a merge may silently take either side's files."""
    entries = (adapter, former(where, adapter))
    folders = {normalise(entry.path) for entry in entries}
    folders |= {
        part
        for tree in (where.base, where.head)
        for entry in entries
        for part in readable_experts(tree, entry.path)
    }
    within = tuple(f"{folder}/" if folder else "" for folder in folders)
    beside = {normalise(name) for entry in entries for name in (entry.config, entry.lock)}
    for name in sorted(where.disputed):
        if (name in beside or name.startswith(within)) and not same(where.base, where.head, name):
            raise InputError(
                f"cannot be judged: {where.head.label} and its base branch have several newest "
                "commits in common, which hold it differently",
                file=name,
                fix="merge the base branch into this one",
            )


def _would_mix(where: Sides, was: str, now: str) -> bool:
    """Whether a merge would silently take other bytes of a file than the head's."""
    start, base, head = where.fork_point, where.base, where.head
    if same(start, base, was) or same(base, head, was, now):
        return False
    if same(start, head, was, now):
        return True
    both = start.has(was) and base.has(was) and head.has(now)
    return both and was.endswith(_TEXTS)
