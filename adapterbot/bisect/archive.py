"""Checkpoints of one training run, oldest first."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

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
    _check_count(found, ", ".join(patterns))
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


def named_checkpoints(arguments: Sequence[str], directory: Path) -> tuple[Checkpoint, ...]:
    """Checkpoints for a command, which may be anything that has a path.

    What exists under its name is taken as it was named, oldest first; one pattern is expanded, in
    the order of the steps in `trainer_state.json` or of the numbers in the names.

    Raises:
        InputError: one is missing or named twice, or there are fewer than two or more than 4096.
    """
    found: list[str] = []
    for argument in arguments:
        if os.path.lexists(directory / argument):  # a link to nothing is an error of the command's
            found.append(argument)
            continue
        matched = glob.glob(argument, root_dir=directory)  # noqa: PTH207 - Path.glob makes names over
        if not matched:
            raise InputError(
                "does not exist", file=argument, field="checkpoints", fix="correct its path"
            )
        found += sorted(matched, key=lambda path: _by_step(directory / path, path))
    seen: dict[Path, str] = {}
    for path in found:
        other = seen.setdefault((directory / path).resolve(), path)
        if other is not path:
            raise InputError("is named twice", file=path, field="checkpoints", fix="name it once")
    _check_count(found, ", ".join(arguments)[:500])
    return tuple(
        Checkpoint(path=path, label=_label(path), step=_step_on_disk(directory / path))
        for path in found
    )


def _label(path: str) -> str:
    name = PurePosixPath(path).name or path
    return name[-200:]


def _by_step(place: Path, name: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    step = _step_on_disk(place)
    return (-1 if step is None else step, _natural(name))


def _step_on_disk(place: Path) -> int | None:
    state = place / TRAINER_STATE
    try:
        text = state.read_bytes() if state.is_file() else b""
    except OSError:
        text = b""
    return _global_step(text, str(state)) if text else None


def _check_count(found: Sequence[str], named: str) -> None:
    if len(found) < 2:
        raise InputError(
            "holds one checkpoint; a search needs two",
            file=named,
            field="checkpoints",
            fix="keep more checkpoints of the run",
        )
    if len(found) > MAX_CHECKPOINTS:
        raise InputError(
            f"holds {len(found)} checkpoints, more than {MAX_CHECKPOINTS}",
            file=named,
            field="checkpoints",
            fix="thin them out",
        )


def _matches(path: str, pattern: str) -> bool:
    # fnmatch's * crosses "/"; a pattern here matches as many folders as it names.
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def _step(tree: Tree, path: str) -> int | None:
    state = f"{path}/{TRAINER_STATE}"
    if not tree.has(state):
        return None
    return _global_step(tree.read(state), state)


def _global_step(content: str | bytes, state: str) -> int | None:
    try:
        step = json.loads(content).get("global_step")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("is not what Trainer writes", file=state, fix="delete it") from error
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None
