"""The rows of training data that came and went between two checkpoints of an archive.

Which files belong to which checkpoint is the policy's word (`archive_data` in adapterbot.yaml);
what is in them is the tree's, where links and paths out of it are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from adapterbot.bisect import Checkpoint
from adapterbot.config import STEP, ArchiveData
from adapterbot.errors import InputError
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree
from adapterbot.lock.row_files import Row
from adapterbot.lock.rows import Rows, read_rows, row_digests

EXAMPLES = 3
_PLACEHOLDERS = {STEP: r"([0-9]{1,18})", "*": "[^/]*"}


def files_between(
    tree: Tree, data: ArchiveData, good: Checkpoint, bad: Checkpoint
) -> tuple[Rows, Rows]:
    """The files to compare for what happened to the rows from one checkpoint to a later one.

    Raises:
        InputError: a checkpoint has no step, no file belongs to it, or one cannot be read.
    """
    first, last = _step(good), _step(bad)
    files = _by_step(tree, data)
    if data.holds == "all":
        before, after = (_rows(tree, files.get(step, []), data, step) for step in (first, last))
        return before, after
    # A run may have kept a checkpoint where no data came, but not have ended before its data did.
    since = [name for step in sorted(files) if first < step <= last for name in files[step]]
    return {}, read_rows(tree, *since)


def added_rows(before: Rows, after: Rows) -> Iterator[Row]:
    """Every row that came, as it stands after. One that changed has come, one that moved has not.

    Raises:
        InputError: a file cannot be read.
    """
    known = Counter(row_digests(chain.from_iterable(before.values())))
    for row in chain.from_iterable(after.values()):
        (digest,) = row_digests([row])
        if known[digest] > 0:
            known[digest] -= 1
        else:
            yield row


def _step(checkpoint: Checkpoint) -> int:
    """The step that the trainer wrote down, else the last number in the checkpoint's name."""
    if checkpoint.step is not None:
        return checkpoint.step
    # The digits of a commit's hash are no step.
    is_commit = f"@{checkpoint.label}" in checkpoint.path
    numbers = [] if is_commit else re.findall(r"[0-9]{1,18}", checkpoint.label)
    if not numbers:
        raise InputError(
            "has no step: neither its name nor trainer_state.json tells one",
            file=checkpoint.path,
            fix="name checkpoints by their steps, such as checkpoint-500",
        )
    return int(numbers[-1])


def _by_step(tree: Tree, data: ArchiveData) -> dict[int, list[str]]:
    """Step → the files of the pattern, or below the folders that it names."""
    pattern = normalise(data.files, field="archive_data.files")
    pieces = re.split(r"(\*|\{step\})", pattern)
    wanted = re.compile("".join(_PLACEHOLDERS.get(piece) or re.escape(piece) for piece in pieces))
    folder = pieces[0].rpartition("/")[0]
    found: dict[int, list[str]] = {}
    for name in tree.files(folder) if tree.has(folder) else ():
        match = wanted.match(name)
        if match and name[match.end() :][:1] in ("", "/"):
            found.setdefault(int(match[1]), []).append(name)
    if not found:
        fix = "commit the data of the checkpoints, or correct the pattern"
        raise _no_file(data, f"in {tree.label}", fix)
    return found


def _rows(tree: Tree, names: list[str], data: ArchiveData, step: int) -> Rows:
    if not names:
        fix = "commit it, or set `holds: added` where files hold only what came at their step"
        raise _no_file(data, f"of step {step} in {tree.label}", fix)
    return read_rows(tree, *names)


def _no_file(data: ArchiveData, which: str, fix: str) -> InputError:
    problem = f"matches no file {which}"
    return InputError(problem, file=data.files, field="archive_data.files", fix=fix)
