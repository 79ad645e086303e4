"""A report's findings as notes on the lines that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adapterbot.gh.workflow import Level, Note
from adapterbot.records import AdapterReport, LockResult, LockStatus, Outcome, Problem


def notes(adapter: AdapterReport) -> Iterator[Note]:
    """What is to be said about single lines, most of them of a lock that drifted."""
    if adapter.problem:
        yield problem_note(adapter.problem, f"{adapter.adapter}: could not be judged")
        return
    level = Level.ERROR if adapter.verdict.fails else Level.WARNING
    if adapter.lock:
        yield from drift_notes(adapter.lock, level)
    if adapter.verdict.outcome is not Outcome.PASSED:
        yield Note(
            level,
            "; ".join(adapter.verdict.reasons),
            file=f"{adapter.adapter}/adapter_config.json",
            title=f"{adapter.adapter}: {adapter.verdict.outcome}",
        )


def drift_notes(lock: LockResult, level: Level) -> Iterator[Note]:
    """Each drifted part on the line that names it, and advice as a notice."""
    for part in lock.parts if lock.status is LockStatus.DRIFT else ():
        places: list[tuple[int | None, str]] = [
            (entry.line, entry.explanation) for entry in part.entries
        ]
        # Advice, such as on training settings, which no lock pins.
        moved = "moved since" if part.advisory else "drifted from"
        for line, why in () if part.ok else places or [(part.line, part.explanation)]:
            yield Note(
                Level.NOTICE if part.advisory else level,
                f"{part.part} {moved} {lock.path}: {why}",
                file=part.file,
                line=line,
                title="since the lock" if part.advisory else "lock drift",
            )


def problem_note(problem: Problem, title: str) -> Note:
    """An error, on its file and line where it names them."""
    said = ": ".join(part for part in (problem.field, problem.message) if part)
    # No more digits than GitHub takes: a stranger may have written the report.
    line = re.search(r"\bline ([0-9]{1,9})\b", problem.field or "")
    return Note(
        Level.ERROR,
        f"{said}. {problem.fix}" if problem.fix else said,
        file=problem.file,
        line=int(line[1]) if line else None,
        title=title,
    )
