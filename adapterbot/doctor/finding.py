"""One thing that was looked at, and what it means for a gate that would start now."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from adapterbot.errors import ExitCode
from adapterbot.records import Line, Record


class Status(StrEnum):
    """How it is.

    `missing`: the gate cannot run on this machine. `wrong`: it would end with a bad input.
    `note`: worth knowing; nothing that the gate needs.
    """

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"
    WRONG = "wrong"


class Finding(Record):
    """What was looked at, what was found, and what to do about it; `fix` is empty when it is ok."""

    what: Line
    found: Line
    status: Status = Status.OK
    fix: Line = ""


def note(what: str, found: str, fix: str) -> Finding:
    """That something is worth knowing."""
    return Finding(what=what, found=found, status=Status.NOTE, fix=fix)


def missing(what: str, found: str, fix: str) -> Finding:
    """That this machine lacks something."""
    return Finding(what=what, found=found, status=Status.MISSING, fix=fix)


def wrong(what: str, found: str, fix: str | None) -> Finding:
    """That the gate would not take something; without a word on how to mend it, it is corrected."""
    return Finding(what=what, found=found, status=Status.WRONG, fix=fix or "correct it")


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """1 when the machine lacks something, else 2 when the repository or the token does."""
    seen = {finding.status for finding in findings}
    if Status.MISSING in seen:
        return ExitCode.FAILURE
    return ExitCode.BAD_INPUT if Status.WRONG in seen else ExitCode.CLEAN
