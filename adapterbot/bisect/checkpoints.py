"""A checkpoint, and the order in which checkpoints of one run were made."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from adapterbot.errors import InputError
from adapterbot.records import Record

TRAINER_STATE = "trainer_state.json"
MAX_CHECKPOINTS = 4096
_NUMBER = re.compile(r"([0-9]{1,18})")


class Checkpoint(Record):
    """One adapter directory of a history. `step` is its optimiser step, where that is known.

    `path` says where it is kept: a path of the repository, `git:path@commit`, or a URL. `looks` is
    what tells its weights from those of another run under the same path; empty where nothing does.
    """

    path: str
    label: str
    step: int | None = None
    looks: str = ""


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which checkpoint-900 comes before checkpoint-1000."""
    return tuple(
        (1, int(part), "") if part.isascii() and part.isdecimal() else (0, 0, part)
        for part in _NUMBER.split(text)
    )


def numbered(name: str) -> bool:
    """Whether a name says when it was made."""
    return _NUMBER.search(name) is not None


def label_of(path: str) -> str:
    """What a reader calls the checkpoint at a path."""
    return (path.rstrip("/").rpartition("/")[2] or path)[-200:]


def global_step(content: str | bytes, state: str) -> int | None:
    """The step that a `trainer_state.json` names.

    Raises:
        InputError: it is not what Trainer writes.
    """
    try:
        step = json.loads(content).get("global_step")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError("is not what Trainer writes", file=state, fix="delete it") from error
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def named_twice(path: str) -> InputError:
    """The error for a checkpoint that occurs two times."""
    return InputError("is named twice", file=path, field="checkpoints", fix="name it once")


def told_apart(found: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The same checkpoints, named by their whole paths where their last parts are not enough."""
    if len({one.label for one in found}) == len(found):
        return tuple(found)
    return tuple(one.model_copy(update={"label": one.path[-200:]}) for one in found)


def check_count(found: Collection[object], named: str) -> None:
    """Refuses what no search can be made over.

    Raises:
        InputError: there are fewer than two checkpoints, or more than 4096.
    """
    if len(found) < 2:
        raise InputError(
            f"holds {'one checkpoint' if found else 'no checkpoint'}; a search needs two",
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
