"""Which row of one version of a dataset became which row of the other.

Takes the rows that only one side has, and pairs up those that are the same row written differently,
that share a cell which is in no other row, or that stand between the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from adapterbot.files.strict_json import unique_object
from adapterbot.lock.row_files import Row, RowFile

# Beyond these a dataset is another one, and pairing its rows up would explain nothing.
MAX_PAIRED = 50_000
DIGEST_BYTES = 16  # no two rows of one dataset will meet
_CELLS = 64
_DEPTH = 50
_NEIGHBOURS = 20_000

Cell = tuple[str, str]


@dataclass
class Unmatched:
    """The rows of one side that the other does not have; each with the row before it that both
    have. Of a great many only the first are held."""

    total: int = 0
    rows: list[tuple[bytes, Row]] = field(default_factory=list)

    def add(self, anchor: bytes, row: Row) -> None:
        """Another row; `anchor` is the digest of the one before it that both sides have."""
        self.total += 1
        if len(self.rows) < MAX_PAIRED:
            self.rows.append((anchor, row))

    @property
    def overflows(self) -> bool:
        """Whether there are more than are held."""
        return self.total > len(self.rows)


# ---------------------------------------------------------------- what a row is


def as_written(row: Row) -> bytes:
    """A digest of the row's bytes."""
    return hashlib.blake2b(row.content, digest_size=DIGEST_BYTES).digest()


def as_meant(row: Row) -> bytes:
    """A digest of what the row says, whatever its spaces and the order of its keys."""
    return hashlib.blake2b(_canonical(_value(row)), digest_size=DIGEST_BYTES).digest()


# `json.loads` and `json.dumps` would make one for each of millions of rows.
_DECODE = json.JSONDecoder(object_pairs_hook=unique_object).decode
_ENCODE = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def _value(row: Row) -> object:
    """The row as JSON, or its text when it is not (unambiguous) JSON, or a line of text, where
    `1.0` and `1.00` are two."""
    if row.file.lower().endswith(".txt"):
        return row.content.decode("utf-8", "backslashreplace")
    try:
        return _DECODE(row.content.decode(json.detect_encoding(row.content), "surrogatepass"))
    except (ValueError, RecursionError):
        return row.content.decode("utf-8", "backslashreplace")


def _canonical(value: object) -> bytes:
    return _ENCODE(value).encode("utf-8", "backslashreplace")


def match_by_meaning(removed: Unmatched, added: Unmatched) -> None:
    """Take out the rows that are only written differently: spaces, the order of keys."""
    if not (removed.rows and added.rows):
        return
    left = Counter(as_meant(row) for _, row in removed.rows)
    both = left & Counter(as_meant(row) for _, row in added.rows)
    for side in (removed, added):
        spare = both.copy()
        kept = []
        for anchor, row in side.rows:
            digest = as_meant(row)
            if spare[digest] > 0:
                spare[digest] -= 1
            else:
                kept.append((anchor, row))
        side.rows, side.total = kept, len(kept)


# ---------------------------------------------------------------- rows that became others


def pair_by_cells(
    removed: Unmatched, added: Unmatched, new: Sequence[RowFile]
) -> list[tuple[Row, Row]]:
    """Pair the rows that share a cell which is in no other row: an id, a prompt."""
    if not (removed.rows and added.rows):
        return []
    left = _owners(row for _, row in removed.rows)
    right = _owners(row for _, row in added.rows)
    telling = {cell for cell in left.keys() & right.keys() if left[cell] >= 0 <= right[cell]}
    # A category that happens to be once on each side tells nothing; unchanged rows have it too.
    ours = {(row.file, row.line) for _, row in added.rows}
    for row in islice(chain.from_iterable(new), _NEIGHBOURS) if telling else ():
        if (row.file, row.line) not in ours:
            telling.difference_update(_cells(_value(row)))
    votes = Counter((left[cell], right[cell]) for cell in telling)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for (i, j), _ in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return _take(removed, added, pairs)


def _owners(rows: Iterable[Row]) -> dict[Cell, int]:
    """Cell → the index of the row that alone has it, or −1 when several have."""
    found: dict[Cell, int] = {}
    for index, row in enumerate(rows):
        for cell in _cells(_value(row)):
            found[cell] = index if found.get(cell, index) == index else -1
    return found


def _cells(value: object) -> Iterator[Cell]:
    """The leaves of a row, each with its path; of a row that has very many, the first, and none
    that lies very deep."""
    return islice(_leaves(value, "", _DEPTH), _CELLS)


def _leaves(value: object, path: str, depth: int) -> Iterator[Cell]:
    if isinstance(value, dict):
        for name in sorted(value) if depth else ():
            yield from _leaves(value[name], f"{path}.{name}", depth - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value) if depth else ():
            yield from _leaves(item, f"{path}[{index}]", depth - 1)
    elif value is not None and value != "" and not isinstance(value, bool):
        yield path, str(value)


def pair_by_place(removed: Unmatched, added: Unmatched) -> list[tuple[Row, Row]]:
    """Pair what stands between the same rows, where it is as many rows as before."""
    left, right = _by_anchor(removed), _by_anchor(added)
    pairs: dict[int, int] = {}
    for anchor, rows in left.items():
        if len(rows) == len(right.get(anchor, ())):
            pairs.update(zip(rows, right[anchor], strict=True))
    return _take(removed, added, pairs)


def _by_anchor(side: Unmatched) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for index, (anchor, _) in enumerate(side.rows):
        found[anchor].append(index)
    return found


def _take(removed: Unmatched, added: Unmatched, pairs: Mapping[int, int]) -> list[tuple[Row, Row]]:
    taken = [(removed.rows[i][1], added.rows[j][1]) for i, j in pairs.items()]
    gone = set(pairs.values())
    removed.rows = [entry for i, entry in enumerate(removed.rows) if i not in pairs]
    added.rows = [entry for j, entry in enumerate(added.rows) if j not in gone]
    removed.total, added.total = len(removed.rows), len(added.rows)
    return taken
