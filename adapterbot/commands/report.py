"""`adapterbot report`: a report, and what lies beside it, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from adapterbot.commands.report_files import PAGE, page_of, read_report
from adapterbot.commands.spared import spare
from adapterbot.files import atomic, validation
from adapterbot.files.named import read_named
from adapterbot.records import Count, Line, Record
from adapterbot.records.merge import MergeRecord
from adapterbot.records.routes import Routes

MAX_BYTES = 64 * 1024 * 1024
R = TypeVar("R", bound=Record)


class Reported(Record):
    """What `adapterbot report --json` prints."""

    page: Line
    adapters: Count
    bytes: Count


def run(
    report: Path, output: Path | None, *, merge: Path | None = None, routes: Path | None = None
) -> Reported:
    """Write the page of a report.json, with every sample whose results are in the report's folder.

    Args:
        output: the page; `report.html` beside the report when None.
        merge: the merge.json of the candidate.
        routes: what `adapterbot mole route --json` printed.

    Raises:
        AdapterbotError: a file cannot be read, or the page cannot be written.
    """
    target = output or report.parent / PAGE
    spare(target, report, merge, routes, field="--output")
    told = read_report(report)
    content = page_of(
        told,
        report.parent,
        merge=_read(MergeRecord, merge, "pass the merge.json that `adapterbot merge` wrote"),
        routes=_read(Routes, routes, "pass what `adapterbot mole route --json` printed"),
    )
    atomic.write_text(target, content)
    return Reported(page=str(target), adapters=len(told.adapters), bytes=len(content.encode()))


def _read(record: type[R], path: Path | None, fix: str) -> R | None:
    if path is None:
        return None
    content = read_named(path, limit=MAX_BYTES, fix=fix)
    try:
        return record.model_validate_json(content)
    except ValidationError as error:
        raise validation.bad_input(error, file=str(path), fix=fix) from error
