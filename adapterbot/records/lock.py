"""The lock check."""

from __future__ import annotations

from enum import StrEnum

from adapterbot.records.base import Count, Line, Name, Record


class LockStatus(StrEnum):
    """Whether the run can be reproduced from what was pushed."""

    OK = "ok"
    DRIFT = "drift"
    MISSING = "missing"


class LockPart(Record):
    """One pinned part: what the lock says, what the push holds, and what changed."""

    part: Name
    locked: Line
    now: Line
    ok: bool
    explanation: Line = ""
    file: Line | None = None
    line: Count | None = None


class LockResult(Record):
    """The lock check, shown as a small table."""

    status: LockStatus
    path: Line
    parts: tuple[LockPart, ...] = ()
    note: Line = ""
