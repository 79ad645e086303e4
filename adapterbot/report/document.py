"""The page: what of a report, and of what lies beside it, is shown in which section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from adapterbot.differing import Pair, worst_first
from adapterbot.pages import section
from adapterbot.pages.curves import Curves, curves
from adapterbot.pages.routing import HeatMap, heat_map
from adapterbot.pages.templating import page
from adapterbot.records import AdapterReport, Report, Standing
from adapterbot.records.merge import MergeRecord
from adapterbot.records.routes import Routes
from adapterbot.report import drawing, past
from adapterbot.report.drawing import IntervalBar, TimedStage, Timeline
from adapterbot.report.past import PastLine
from adapterbot.report.samples import BYTES_LIMIT, Embedded, embed
from adapterbot.wording import gained

STYLES: Final = ("page.css", "report.css", "curves.css", "routing.css")
SCRIPT: Final = "report.js"


@dataclass(frozen=True)
class Beside:
    """What a report does not hold itself, but a page can show.

    Attributes:
        samples: gives of an adapter every sample under both sides, or None where only the report's
            own few are known. Asked for one adapter after the other: only the last one's are held.
        merge: how the candidate was merged.
        routes: how a mixture routed a text.
    """

    samples: Callable[[AdapterReport], Sequence[Pair] | None] = field(default=lambda _: None)
    merge: MergeRecord | None = None
    routes: Routes | None = None


@dataclass(frozen=True)
class Section:
    """One adapter. `bars` go with the page's rows, the quiet ones last."""

    id: str
    page: section.Page
    bars: tuple[IntervalBar | None, ...]
    timeline: Timeline | None
    samples: Embedded
    whole: bool
    history: tuple[PastLine, ...]
    stages: tuple[TimedStage, ...]


@dataclass(frozen=True)
class Merge:
    """A merge record, its search as a chart, and what came of it in a sentence."""

    record: MergeRecord
    curves: Curves | None
    conclusion: str | None


def html(report: Report, beside: Beside = Beside()) -> str:
    """One self-contained page: no request, its style and its script pinned by hash."""
    merge: Merge | None = None
    if beside.merge:
        search = beside.merge.search
        found = (curves(search.history), gained(search)) if search else (None, None)
        merge = Merge(beside.merge, *found)
    routes: HeatMap | None = heat_map(beside.routes) if beside.routes else None
    share = BYTES_LIMIT // max(1, len(report.adapters))
    return page(
        "report.html.j2",
        styles=STYLES,
        script=SCRIPT,
        report=report,
        sections=[
            _section(f"a{i}", adapter, beside.samples(adapter), share)
            for i, adapter in enumerate(report.adapters)
        ],
        merge=merge,
        routes=routes,
    )


def _section(
    anchor: str, adapter: AdapterReport, samples: Sequence[Pair] | None, share: int
) -> Section:
    broken = {m.delta.task for m in adapter.metrics if m.standing is Standing.REGRESSED}
    if samples is None:
        pairs = [Pair(diff, changed=True) for diff in adapter.samples]
    else:
        pairs = worst_first(samples, first=broken)
    shown = section.page(adapter)
    rows = (*shown.rows, *shown.quiet_rows)
    return Section(
        id=anchor,
        page=shown,
        bars=drawing.interval_bars([row.verdict for row in rows]),
        timeline=drawing.timeline(adapter.bisect) if adapter.bisect else None,
        samples=embed(pairs, share, ticked=shown.ticked),
        whole=samples is not None,
        history=past.lines(adapter),
        stages=drawing.timed(adapter.stages),
    )
