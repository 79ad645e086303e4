"""The lock check."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from adapterbot.records.base import Count, Line, Name, Record, Text


class LockStatus(StrEnum):
    """Whether the run can be reproduced from what was pushed."""

    OK = "ok"
    DRIFT = "drift"
    MISSING = "missing"


class LockEntry(Record):
    """One entry of the data section whose files are not the locked ones, and its line."""

    line: Count
    explanation: Line


class LockPart(Record):
    """One pinned part: what the lock says, what the push holds, and what changed. An `advisory`
    part is shown, and is never a drift. `entries` are the data entries that changed, where several
    lines of the config name data."""

    part: Name
    locked: Line
    now: Line
    ok: bool
    explanation: Line = ""
    file: Line | None = None
    line: Count | None = None
    advisory: bool = False
    entries: Annotated[tuple[LockEntry, ...], Field(max_length=50)] = ()


class LockResult(Record):
    """The lock check, shown as a small table."""

    status: LockStatus
    path: Line
    parts: tuple[LockPart, ...] = ()
    note: Line = ""


class RowExample(Record):
    """One row that differs, as text: `before` is None for an added row, `after` for a removed one.

    `file` and `line` (1-based; for Parquet the number of the row) are where it stands now, or
    where a removed row stood.
    """

    file: Line
    line: Count
    before: Text | None = None
    after: Text | None = None


class FileDiff(Record):
    """The rows of one data file; `file` reads `old → new` where it was renamed."""

    file: Line
    rows_before: Count = 0
    rows_after: Count = 0
    added: Count = 0
    removed: Count = 0
    changed: Count = 0
    reordered: bool = False


class DatasetDiff(Record):
    """What happened to the rows of a dataset, in total, and by file where anything did.

    Every list is cut short at a bound; the counts are not.
    """

    added: Count = 0
    removed: Count = 0
    changed: Count = 0
    files: Annotated[tuple[FileDiff, ...], Field(max_length=100)] = ()
    added_rows: Annotated[tuple[RowExample, ...], Field(max_length=100)] = ()
    removed_rows: Annotated[tuple[RowExample, ...], Field(max_length=100)] = ()
    changed_rows: Annotated[tuple[RowExample, ...], Field(max_length=100)] = ()

    @property
    def summary(self) -> str:
        """`+120 rows, −3 rows, 14 changed`."""
        parts = [
            f"{sign}{count:,} row{'' if count == 1 else 's'}"
            for sign, count in (("+", self.added), ("−", self.removed))
            if count
        ]
        if self.changed:
            parts.append(f"{self.changed:,} changed")
        if not parts and any(file.reordered for file in self.files):
            return "the same rows in another order"
        return ", ".join(parts) or "the same rows"
