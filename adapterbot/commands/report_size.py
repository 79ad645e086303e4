"""A report within the bytes that its readers take.

A stranger may have written the report that `publish` reads, so its size is bounded; and what the
gate writes must be what `publish` reads. What a reader misses least goes: samples, of which a
comment shows few, and past levels. Each section that is cut says so.
"""

from __future__ import annotations

from adapterbot import render
from adapterbot.errors import InputError
from adapterbot.records import AdapterReport, Report

MAX_REPORT_BYTES = 16 * 1024 * 1024
# So many samples of a kind are left to each adapter, and so many past levels for each of these.
_FEWER = (16, 8, 4, 2, 1, 0)
_LEVELS = 4
_CUT = "to keep report.json small enough to be published, "


def within(report: Report, limit: int = MAX_REPORT_BYTES) -> Report:
    """The report, cut where its JSON would have more than `limit` bytes.

    Raises:
        InputError: it would even without a sample.
    """
    if _fits(report, limit):
        return report
    for most in _FEWER:
        sections = tuple(_cut(section, most) for section in report.adapters)
        cut = report.model_copy(update={"adapters": sections})
        if _fits(cut, limit):
            return cut
    raise InputError(
        f"would be larger than {limit:,} bytes, even without a sample",
        file="report.json",
        fix="judge fewer adapters in one run, or fewer slices in one suite",
    )


def _fits(report: Report, limit: int) -> bool:
    return len(render.json_text(report).encode()) <= limit


def _cut(section: AdapterReport, most: int) -> AdapterReport:
    """The section with the worst samples and the newest levels alone, and a note where that is less
    than it had. To cut it again leaves one note, of what it has then."""
    bisect, trends = section.bisect, section.trends
    if bisect and bisect.between:
        between = bisect.between.model_copy(update={"worse": bisect.between.worse[:most]})
        bisect = bisect.model_copy(update={"between": between})
    newest = slice(-most * _LEVELS, None)
    trends = tuple(t.model_copy(update={"points": t.points[newest]}) for t in trends if most)
    changes = {"samples": section.samples[:most], "bisect": bisect, "trends": trends}
    cut = section.model_copy(update=changes)
    if cut == section:
        return section
    kept = f"{_CUT}this section has at most {most} samples and {most * _LEVELS} past levels"
    others = (note for note in section.notes if not note.startswith(_CUT))
    return cut.model_copy(update={"notes": (kept, *others)})
