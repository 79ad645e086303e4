"""The table of metrics: a row for each task and slice, its figures written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.pages import charts, figures
from adapterbot.pages.figures import Compact, Scale
from adapterbot.pages.inert import Inert
from adapterbot.records import Comparison, Direction, MetricVerdict, Standing
from adapterbot.records.deltas import FEWEST
from adapterbot.records.history import Trend

# How many commits a trend in a table cell goes back, the candidate among them.
TREND_SIGNS = 16

# Keeps a symbol with its word in a narrow column.
_NBSP = "\N{NO-BREAK SPACE}"
STANDINGS = {
    Standing.REGRESSED: (f"❌{_NBSP}", "regressed"),
    Standing.IMPROVED: (f"✅{_NBSP}", "improved"),
    Standing.OK: (f"✅{_NBSP}", "ok"),
    Standing.INCONCLUSIVE: (f"⚠️{_NBSP}", "inconclusive"),
    Standing.NOT_JUDGED: (f"🚫{_NBSP}", "not judged"),
    Standing.INFORMATIVE: ("", "not gated"),
}
_COMPARISONS = {
    Comparison.IDENTICAL: "identical",
    Comparison.EMPTY: "no samples",
    Comparison.INCOMPLETE: "incomplete",
}


@dataclass(frozen=True)
class Row:
    """One line of the metrics table, figures already written out."""

    task: str
    slice: str | None
    under_task: bool
    lower_is_better: bool
    regressed: bool
    baseline: Inert
    candidate: Inert
    change: Inert
    interval: Inert
    detectable: Inert
    margin: Inert
    symbol: Inert
    standing: Inert
    trend: Inert | None
    trend_said: Inert | None
    verdict: MetricVerdict

    @property
    def why(self) -> str:
        """The policy's reason and the comparison's note."""
        return "; ".join(part for part in (self.verdict.reason, self.verdict.delta.note) if part)


def rows_of(metrics: Sequence[MetricVerdict], trends: Sequence[Trend]) -> tuple[Row, ...]:
    """Tasks in report order, each followed by its slices."""
    past = {trend.metric: trend for trend in trends}
    tasks = list(dict.fromkeys(metric.delta.task for metric in metrics))
    place = {task: i for i, task in enumerate(tasks)}
    ordered = sorted(metrics, key=lambda m: (place[m.delta.task], m.delta.slice is not None))
    whole = {m.delta.task for m in metrics if m.delta.slice is None}
    return tuple(
        _row(metric, past.get(metric.delta.metric), under_task=metric.delta.task in whole)
        for metric in ordered
    )


def _row(metric: MetricVerdict, past: Trend | None, *, under_task: bool) -> Row:
    delta = metric.delta
    scale = Scale.of(delta)
    return Row(
        task=delta.task,
        slice=delta.slice,
        under_task=under_task and delta.slice is not None,
        lower_is_better=delta.direction is Direction.LOWER,
        regressed=metric.standing is Standing.REGRESSED,
        baseline=scale.level(delta.baseline),
        candidate=scale.level(delta.candidate),
        change=scale.change(delta.change),
        interval=scale.interval(delta.interval),
        detectable=scale.detectable(delta.min_detectable, delta.direction),
        margin=scale.showing(metric.margin).detectable(metric.margin, Direction.HIGHER),
        symbol=Inert(STANDINGS[metric.standing][0]),
        standing=_standing(metric),
        trend=_sparkline(past, delta.candidate) if past else None,
        trend_said=_past(past) if past else None,
        verdict=metric,
    )


def _sparkline(past: Trend, now: float | None) -> Inert:
    """The last levels, and that of the candidate."""
    values = [point.value for point in past.points[-TREND_SIGNS + 1 :]]
    return charts.sparkline([*values, now])


def _past(past: Trend) -> Inert:
    """What a line of signs is read out as: `lowest 94.1%, highest 96.0%, last 95.2%`."""
    values = [point.value for point in past.points[-TREND_SIGNS + 1 :]]
    known = [value for value in values if value is not None]
    scale = Compact.of(past.unit, *known)
    low, high = scale.level(min(known, default=None)), scale.level(max(known, default=None))
    last = scale.level(values[-1] if values else None)
    return Inert(f"lowest {low}, highest {high}, last {last}")


def _standing(metric: MetricVerdict) -> Inert:
    delta = metric.delta
    words = STANDINGS[metric.standing][1]
    if metric.standing is Standing.INCONCLUSIVE and delta.samples_needed:
        needed = figures.count(delta.samples_needed, "sample")
        return Inert(f"{words}, about {needed} would settle it")
    if delta.outcome is Comparison.TOO_FEW:
        # Of many samples it is their clusters that are few; the note says how many.
        few = figures.count(delta.n, "sample") if delta.n < FEWEST else "a few clusters of samples"
        return Inert(f"{words}: only {few}")
    how = _COMPARISONS.get(delta.outcome)
    return Inert(f"{words}: {how}" if how else words)
