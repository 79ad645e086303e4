"""What happened to the rows of a dataset between two versions of it.

Rows are compared by content, as a multiset: moving one is not a change. A row that is on one side
only is *changed* rather than added and removed when it can be told which row of the other side it
was: by a cell that no other row has (an id, a prompt), else by standing between the same rows.
Nothing here reads a file; `row_files` does.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from adapterbot.errors import InputError
from adapterbot.files.tree import Tree
from adapterbot.lock.dataset import dataset_paths
from adapterbot.lock.row_files import Row, RowFile, Rows, read_rows
from adapterbot.lock.row_pairs import (
    DIGEST_BYTES,
    Unmatched,
    as_meant,
    as_written,
    match_by_meaning,
    pair_by_cells,
    pair_by_place,
)
from adapterbot.lock.training import load_training
from adapterbot.records import DatasetDiff, FileDiff, RowExample

__all__ = ["Rows", "dataset_diff", "digests_of", "read_rows", "row_digests", "training_rows"]

Item = TypeVar("Item")

EXAMPLES = 5
EXAMPLE_CHARACTERS = 600
MAX_ROWS = 5_000_000
MAX_LISTED = 100


def dataset_diff(before: Rows, after: Rows, *, examples: int = EXAMPLES) -> DatasetDiff:
    """The rows added, removed and changed between two versions of a dataset.

    Files of the same name are compared with each other, and the files that only one side has with
    the files that only the other side has, so that a renamed or resharded file is no news. Each
    file that differs is read three times at most, never held.

    Args:
        examples: at most so many rows are shown for each of added, removed and changed, from all
            over the dataset.

    Raises:
        InputError: a file cannot be read, or holds more rows than we can tell apart.
    """
    found = [_compare(old, new) for old, new in _counterparts(before, after)]
    differing = [compared for compared in found if compared.differs]
    return DatasetDiff(
        added=sum(c.added for c in found),
        removed=sum(c.removed for c in found),
        changed=sum(len(c.changed_rows) for c in found),
        files=tuple(c.record() for c in differing[:MAX_LISTED]),
        added_rows=tuple(
            _example(row, None, row) for row in _spread(examples, [c.added_rows for c in found])
        ),
        removed_rows=tuple(
            _example(row, row, None) for row in _spread(examples, [c.removed_rows for c in found])
        ),
        changed_rows=tuple(
            _example(new, old, new)
            for old, new in _spread(examples, [c.changed_rows for c in found])
        ),
    )


def training_rows(tree: Tree, config: str) -> Rows:
    """The rows of every file in a tree that a training config's data section names.

    Raises:
        InputError: the config is broken, names nothing that is there, or a file that has no rows.
    """
    training = load_training(tree, config)
    paths = dataset_paths(training, tree)
    if not paths:
        raise InputError(
            f"names no data in {tree.label}", file=config, field="data", fix="commit the data"
        )
    return read_rows(tree, *paths)


def _spread(count: int, files: Sequence[Sequence[Item]]) -> Sequence[Item]:
    """At most `count` of all, in order, always the same ones. Data is often sorted or takes turns,
    so neither its beginning nor every n-th row stands for the rest."""
    rows = list(chain.from_iterable(files))
    drawn = random.Random(len(rows)).sample(range(len(rows)), min(count, MAX_LISTED, len(rows)))  # noqa: S311
    return [rows[i] for i in sorted(drawn)]


def _example(here: Row, old: Row | None, new: Row | None) -> RowExample:
    return RowExample(
        file=_shown(here.file),
        line=here.line,
        before=old and _clipped(old),
        after=new and _clipped(new),
    )


def as_added(row: Row) -> RowExample:
    """A row that came, cut to what a reader is shown."""
    return _example(row, None, row)


def _clipped(row: Row) -> str:
    text = row.content[: 4 * EXAMPLE_CHARACTERS].decode("utf-8", "replace")
    return text if len(text) <= EXAMPLE_CHARACTERS else text[: EXAMPLE_CHARACTERS - 1] + "…"


def row_digests(rows: Iterable[Row]) -> Iterator[bytes]:
    """A digest of what each row means, 16 bytes: all that a lock keeps of it."""
    return map(as_meant, rows)


def digests_of(rows: Rows) -> Rows:
    """The same files with each row known by its digest only, to compare with rows that were kept
    like that."""

    def known_by_digest(file: RowFile) -> RowFile:
        def read() -> Iterator[Row]:
            for row in file:
                yield row._replace(content=as_meant(row).hex().encode())

        return RowFile(file.name, file.digest, read)

    return {name: known_by_digest(file) for name, file in rows.items()}


# ---------------------------------------------------------------- which file with which


def _counterparts(
    before: Rows, after: Rows
) -> Iterator[tuple[Sequence[RowFile], Sequence[RowFile]]]:
    """The files to compare with each other; those that are the same on both sides are left out."""
    old = {name: file for name, file in before.items() if name not in after}
    new = {name: file for name, file in after.items() if name not in before}
    for name in sorted(before.keys() & after.keys()):
        if before[name].digest != after[name].digest:
            yield [before[name]], [after[name]]
    digests = [Counter(file.digest for file in side.values()) for side in (old, new)]
    # A copy beside a file that moved is as many rows more.
    left, right = (_beyond(side, digests[0] & digests[1]) for side in (old, new))
    if left or right:
        yield left, right


def _beyond(side: Rows, moved: Counter[str]) -> list[RowFile]:
    """The files of a side without those that the other side has by another name, as often as it
    has them."""
    spare = moved.copy()
    found = []
    for name in sorted(side):
        spare[side[name].digest] -= 1
        if spare[side[name].digest] < 0:
            found.append(side[name])
    return found


# ---------------------------------------------------------------- one comparison


@dataclass
class _Compared:
    """What became of the rows of some files that were compared with each other."""

    name: str
    rows_before: int
    rows_after: int
    added: int
    removed: int
    reordered: bool
    added_rows: list[Row]
    removed_rows: list[Row]
    changed_rows: list[tuple[Row, Row]]

    @property
    def differs(self) -> bool:
        return bool(self.added or self.removed or self.changed_rows or self.reordered)

    def record(self) -> FileDiff:
        return FileDiff(
            file=self.name,
            rows_before=self.rows_before,
            rows_after=self.rows_after,
            added=self.added,
            removed=self.removed,
            changed=len(self.changed_rows),
            reordered=self.reordered,
        )


def _compare(old: Sequence[RowFile], new: Sequence[RowFile]) -> _Compared:
    name = _named(old, new)
    split = _split(name, old, new, as_written)
    if split.removed.overflows or split.added.overflows:
        split = _split(name, old, new, as_meant)
    removed, added = split.removed, split.added
    rewritten = bool(removed.total and added.total)
    changed: list[tuple[Row, Row]] = []
    if not (removed.overflows or added.overflows):
        match_by_meaning(removed, added)
        changed = pair_by_cells(removed, added, new)
        changed += pair_by_place(removed, added)
        changed.sort(key=lambda pair: (pair[1].file, pair[1].line))
    same = not (removed.total or added.total or changed)
    if same and rewritten:
        split = _split(name, old, new, as_meant)
    return _Compared(
        name=name,
        rows_before=split.rows_before,
        rows_after=split.rows_after,
        added=added.total,
        removed=removed.total,
        reordered=same and split.reordered,
        added_rows=[row for _, row in added.rows],
        removed_rows=[row for _, row in removed.rows],
        changed_rows=changed,
    )


def _named(old: Sequence[RowFile], new: Sequence[RowFile]) -> str:
    left, right = (
        files[0].name if len(files) == 1 else f"{len(files)} files" for files in (old, new)
    )
    if not old or not new or left == right:
        return _shown(right if new else left)
    return f"{_shown(left)} → {_shown(right)}"


def _shown(name: str) -> str:
    """A file's name for a reader; it may be long, or bytes that are no text."""
    return name.encode("utf-8", "backslashreplace").decode()[-900:]


# ---------------------------------------------------------------- rows that both sides have


@dataclass
class _Split:
    rows_before: int
    rows_after: int
    removed: Unmatched
    added: Unmatched
    reordered: bool


def _split(
    name: str, old: Sequence[RowFile], new: Sequence[RowFile], key: Callable[[Row], bytes]
) -> _Split:
    """Take the rows that are on both sides out of the comparison, as often as they are on both."""
    left, left_order = _counted(name, old, key)
    rows_before, spare = left.total(), left.copy()
    added, removed = Unmatched(), Unmatched()
    anchor, rows_after = b"", 0
    right_order = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for row in chain.from_iterable(new):
        rows_after += 1
        digest = key(row)
        right_order.update(digest)
        if spare[digest] > 0:
            spare[digest] -= 1
            anchor = digest
        else:
            added.add(anchor, row)
    anchor = b""
    for row in chain.from_iterable(old) if spare.total() else ():
        digest = key(row)
        if spare[digest] > 0:
            spare[digest] -= 1
            removed.add(anchor, row)
        else:
            anchor = digest
    return _Split(rows_before, rows_after, removed, added, left_order != right_order.digest())


def _counted(
    name: str, files: Sequence[RowFile], key: Callable[[Row], bytes]
) -> tuple[Counter[bytes], bytes]:
    counted: Counter[bytes] = Counter()
    order = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for number, row in enumerate(chain.from_iterable(files)):
        if number >= MAX_ROWS:
            raise InputError(
                f"holds more than the {MAX_ROWS:,} rows that we compare", file=name, fix="split it"
            )
        digest = key(row)
        counted[digest] += 1
        order.update(digest)
    return counted, order.digest()
