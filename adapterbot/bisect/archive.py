"""Checkpoints of one training run, oldest first."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath

from adapterbot.errors import InputError
from adapterbot.records import Record
from adapterbot.tree import Tree, normalise

ADAPTER_CONFIG = "adapter_config.json"
TRAINER_STATE = "trainer_state.json"
MAX_CHECKPOINTS = 4096


class Checkpoint(Record):
    """One adapter directory of a history. `step` is its optimiser step, where that is known."""

    path: str
    label: str
    step: int | None = None


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which checkpoint-900 comes before checkpoint-1000."""
    return tuple(
        (1, int(part), "") if part.isascii() and part.isdecimal() else (0, 0, part)
        for part in re.split(r"([0-9]{1,18})", text)
    )


def find_checkpoints(tree: Tree, patterns: Sequence[str]) -> tuple[Checkpoint, ...]:
    """Adapter directories that match one of the patterns, sorted by step.

    The step is what `trainer_state.json` says, else the order of the numbers in the name.

    Raises:
        InputError: fewer than two, more than 4096, or a checkpoint named twice.
    """
    directories = [
        str(PurePosixPath(name).parent)
        for name in tree.survey()
        if PurePosixPath(name).name == ADAPTER_CONFIG
    ]
    found: list[str] = []
    for pattern in patterns:
        wanted = normalise(pattern, field="checkpoints")
        matched = [path for path in directories if _matches(path, wanted)]
        if not matched:  # a folder of checkpoints
            matched = [path for path in directories if _matches(path, f"{wanted}/*")]
        if not matched:
            raise InputError(
                f"matches no adapter directory in {tree.label}",
                file=pattern,
                field="checkpoints",
                fix="name checkpoints, the folder that holds them, or a pattern such as runs/*",
            )
        doubled = sorted(set(matched) & set(found))
        if doubled:
            raise InputError(
                "is named twice", file=doubled[0], field="checkpoints", fix="name it once"
            )
        found += matched
    if len(found) < 2:
        raise InputError(
            "holds one checkpoint; a search needs two",
            file=", ".join(patterns),
            field="checkpoints",
            fix="keep more checkpoints of the run",
        )
    if len(found) > MAX_CHECKPOINTS:
        raise InputError(
            f"holds {len(found)} checkpoints, more than {MAX_CHECKPOINTS}",
            file=", ".join(patterns),
            field="checkpoints",
            fix="thin them out",
        )
    steps = {path: _step(tree, path) for path in found}
    if all(step is not None for step in steps.values()):
        found.sort(key=lambda path: (steps[path] or 0, _natural(path)))
    elif len(patterns) == 1:
        found.sort(key=_natural)
    # Otherwise the order in which a person named them is the order in which they were made.
    return tuple(
        Checkpoint(path=path, label=PurePosixPath(path).name[-200:], step=steps[path])
        for path in found
    )


def _matches(path: str, pattern: str) -> bool:
    # fnmatch's * crosses "/"; a pattern here matches as many folders as it names.
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def _step(tree: Tree, path: str) -> int | None:
    state = f"{path}/{TRAINER_STATE}"
    if not tree.has(state):
        return None
    try:
        step = json.loads(tree.read(state)).get("global_step")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("is not what Trainer writes", file=state, fix="delete it") from error
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None
