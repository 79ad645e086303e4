"""What one adapter's section shows, and in which order it gives way when there is no room.

A page is the report cut and sorted for a reader; how it looks is the templates' business, and
strings are still untrusted here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from adapterbot import wording
from adapterbot.pages import figures, suspects
from adapterbot.pages.changes import Changes, changes
from adapterbot.pages.inert import Inert
from adapterbot.pages.rows import Row, rows_of
from adapterbot.pages.shares import ShareRow, share_rows
from adapterbot.records import (
    AdapterReport,
    BisectVerdict,
    Direction,
    LockPart,
    MetricVerdict,
    Outcome,
    Probe,
    SampleDiff,
    Standing,
    Unit,
)

# From this many metrics on, those that say nothing new are folded away.
FOLD_FROM = 13
MOST_REASONS = 5
# A sample longer than this is shown as a block of its own instead of a table row.
SHORT = 120
# What a field of a sample shows, and what is left of it when room is scarce, and scarcer.
SAMPLE_TEXT = (1500, 600, 250)

HEADLINES = {
    Outcome.PASSED: ("✅", "Passed"),
    Outcome.REGRESSED: ("❌", "Regressed"),
    Outcome.INCONCLUSIVE: ("⚠️", "Inconclusive"),
    Outcome.DRIFT: ("⚠️", "Lock drift"),
    Outcome.NOT_JUDGED: ("🚫", "Could not judge"),
}
_QUIET = {Standing.OK, Standing.INFORMATIVE}
_HEX_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{32,128}")

T = TypeVar("T")
# One thing that can be left out: what it is and which one.
Item = tuple[str, int]
_COUNTED = {
    "quiet": "unchanged metric",
    "loud": "metric",
    "sample": "sample",
    "probe": "probe",
    "note": "note",
    "part": "lock part",
}
_SWITCHED = {
    "decided": "how it was decided",
    "routing": "who wrote the answers",
    "clip": "parts of long samples",
    "worse": "samples of the checkpoints",
    "layers": "layers that moved",
    "data": "parts of the data change",
    "blame": "training rows that pull most",
}


@dataclass(frozen=True)
class SampleGroup:
    """Consecutive samples that are shown the same way: table rows, or one block each."""

    short: bool
    samples: tuple[SampleDiff, ...]


@dataclass(frozen=True)
class Page:
    """One adapter, cut to size. `ticked` are the tasks whose 1 is right and whose 0 is wrong."""

    adapter: AdapterReport
    outcome: Outcome
    symbol: Inert
    word: Inert
    reasons: tuple[str, ...]
    more_reasons: int
    rows: tuple[Row, ...]
    quiet_rows: tuple[Row, ...]
    interval_header: Inert
    with_trend: bool
    decided: bool
    routing: tuple[ShareRow, ...]
    lock_parts: tuple[LockPart, ...]
    lock_parts_ok: int
    sample_groups: tuple[SampleGroup, ...]
    sample_text: int
    samples_shown: int
    samples_changed: int
    ticked: frozenset[str]
    with_task: bool
    probes: tuple[Probe, ...]
    timeline: Inert | None
    chart: Inert | None
    changes: Changes | None
    notes: tuple[str, ...]
    cached_share: float | None
    cost: Inert | None
    measuring: tuple[str, ...]
    left_out: Inert | None


def judged(adapter: AdapterReport) -> Outcome:
    """The outcome to show: an adapter with a problem never looks judged, whatever else it says."""
    return Outcome.NOT_JUDGED if adapter.problem else adapter.verdict.outcome


def headline(adapter: AdapterReport) -> tuple[Inert, Inert]:
    """One symbol and one word."""
    symbol, word = HEADLINES[judged(adapter)]
    return Inert(symbol), Inert(word)


def ticked(adapter: AdapterReport) -> frozenset[str]:
    """The tasks in which a score of 1 is right and one of 0 wrong."""
    return frozenset(
        metric.delta.task
        for metric in adapter.metrics
        if metric.delta.unit is Unit.FRACTION and metric.delta.direction is Direction.HIGHER
    )


def give_way(adapter: AdapterReport) -> list[Item]:
    """Everything that can be left out, least interesting first."""
    by_harm = sorted(enumerate(adapter.metrics), key=lambda item: (_weight(item[1]), -item[0]))
    metrics = [("quiet" if m.standing in _QUIET else "loud", i) for i, m in by_harm]
    samples = range(len(adapter.samples) - 1, -1, -1)
    probes = len(adapter.bisect.probes) if adapter.bisect else 0
    parts = len(adapter.lock.parts) if adapter.lock else 0
    return [
        ("worse", 0),
        ("decided", 0),
        # The tail of a long answer goes before a whole row does.
        ("clip", 0),
        *(item for item in metrics if item[0] == "quiet"),
        ("clip", 1),
        ("routing", 0),
        *(("probe", i) for i in range(probes - 1, -1, -1)),
        ("layers", 0),
        ("data", 0),
        ("blame", 0),
        *(("sample", i) for i in samples),
        *(("note", i) for i in range(len(adapter.notes) - 1, -1, -1)),
        *(("part", i) for i in range(parts - 1, -1, -1)),
        *(item for item in metrics if item[0] == "loud"),
    ]


def _weight(metric: MetricVerdict) -> tuple[bool, float]:
    """How much a reader would miss this row: regressions most, then by harm in margins."""
    change = abs(metric.delta.change or 0.0)
    return metric.standing is Standing.REGRESSED, change / (abs(metric.margin) or 1.0)


def _texts(sample: SampleDiff) -> tuple[str, str, str, str]:
    return sample.prompt, sample.expected, sample.baseline_output, sample.candidate_output


def page(adapter: AdapterReport, left_out: Iterable[Item] = ()) -> Page:
    """The page without the items in `left_out`."""
    gone = frozenset(left_out)
    metrics = _kept(("quiet", "loud"), adapter.metrics, gone)
    fold = len(metrics) >= FOLD_FROM
    samples = _kept(("sample",), adapter.samples, gone)
    parts = adapter.lock.parts if adapter.lock else ()
    symbol, word = headline(adapter)
    stats = adapter.eval
    return Page(
        adapter=adapter,
        outcome=judged(adapter),
        symbol=symbol,
        word=word,
        reasons=adapter.verdict.reasons[:MOST_REASONS],
        more_reasons=max(0, len(adapter.verdict.reasons) - MOST_REASONS),
        rows=rows_of([m for m in metrics if not fold or m.standing not in _QUIET], adapter.trends),
        quiet_rows=rows_of([m for m in metrics if fold and m.standing in _QUIET], adapter.trends),
        interval_header=_interval_header(metrics),
        with_trend=bool(adapter.trends),
        decided=bool(metrics) and ("decided", 0) not in gone,
        routing=() if ("routing", 0) in gone else share_rows(adapter.routing),
        lock_parts=tuple(part for part in _kept(("part",), parts, gone) if not part.ok),
        lock_parts_ok=sum(part.ok for part in parts),
        sample_groups=_grouped(samples),
        sample_text=_sample_text(gone),
        samples_shown=len(samples),
        samples_changed=max(adapter.samples_changed, len(adapter.samples)),
        ticked=ticked(adapter),
        with_task=len({(sample.task, sample.slice) for sample in samples}) > 1,
        probes=_kept(("probe",), adapter.bisect.probes if adapter.bisect else (), gone),
        timeline=suspects.line(adapter.bisect) if adapter.bisect else None,
        chart=suspects.chart(adapter.bisect) if adapter.bisect and not gone else None,
        changes=_changes(adapter, gone),
        notes=_kept(("note",), adapter.notes, gone),
        cached_share=min(stats.cached / stats.samples, 1.0) if stats and stats.samples else None,
        cost=_cost(adapter),
        measuring=(
            *([wording.stopped_early(adapter.early)] if adapter.early else []),
            *([wording.noise_floor(adapter.noise)] if adapter.noise else []),
        ),
        left_out=_left_out(adapter, gone),
    )


def _cost(adapter: AdapterReport) -> Inert | None:
    words = wording.cost(adapter.eval, adapter.stages) if adapter.eval else None
    return Inert(words) if words else None  # figures and words of ours


def _kept(kinds: tuple[str, ...], items: Sequence[T], gone: frozenset[Item]) -> tuple[T, ...]:
    return tuple(
        item for i, item in enumerate(items) if not any((kind, i) in gone for kind in kinds)
    )


def _changes(adapter: AdapterReport, gone: frozenset[Item]) -> Changes | None:
    if not broke(adapter) or adapter.bisect is None or adapter.bisect.between is None:
        return None
    return changes(
        adapter.bisect.between,
        data_cut=("data", 0) in gone,
        layers=("layers", 0) not in gone,
        samples=("worse", 0) not in gone,
        blame=("blame", 0) not in gone,
    )


def _sample_text(gone: frozenset[Item]) -> int:
    return SAMPLE_TEXT[sum(kind == "clip" for kind, _ in gone)]


def _left_out(adapter: AdapterReport, gone: frozenset[Item]) -> Inert | None:
    counts = Counter(kind for kind, _ in gone)
    parts: list[str] = [
        figures.count(counts[kind], noun) for kind, noun in _COUNTED.items() if counts[kind]
    ]
    between = adapter.bisect.between if adapter.bisect else None
    something = {
        "decided": bool(adapter.metrics),
        "routing": bool(adapter.routing),
        "clip": any(len(t) > _sample_text(gone) for s in adapter.samples for t in _texts(s)),
        "worse": between is not None and bool(between.worse),
        "layers": between is not None and bool(between.layers),
        "blame": between is not None and bool(between.blame),
        "data": between is not None and between.data is not None and bool(between.data.files),
    }
    parts += [words for kind, words in _SWITCHED.items() if counts[kind] and something[kind]]
    return Inert(", ".join(parts)) if parts else None


def _grouped(samples: Sequence[SampleDiff]) -> tuple[SampleGroup, ...]:
    """Consecutive samples of one layout, so that the order by harm is kept."""

    def short(sample: SampleDiff) -> bool:
        # A line end or two read well in a cell; a paragraph does not.
        return all(len(text) <= SHORT and text.count("\n") <= 2 for text in _texts(sample))

    return tuple(SampleGroup(is_short, tuple(run)) for is_short, run in groupby(samples, short))


def _interval_header(metrics: Sequence[MetricVerdict]) -> Inert:
    levels = {m.delta.interval.level for m in metrics if m.delta.interval}
    return Inert(f"{figures.share(levels.pop())} interval" if len(levels) == 1 else "Interval")


def short_digest(value: str) -> str:
    """A hexadecimal digest by its first twelve digits; anything else as it is."""
    if not _HEX_DIGEST.fullmatch(value):
        return value
    return value.removeprefix("sha256:")[:12]


def broke(adapter: AdapterReport) -> bool:
    """Whether bisect has something to say under the headline."""
    return adapter.bisect is not None and adapter.bisect.verdict in {
        BisectVerdict.BROKEN_AT,
        BisectVerdict.BROKEN_WITHIN,
    }
