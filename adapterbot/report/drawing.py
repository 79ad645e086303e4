"""The geometry of what the page draws: numbers only, which the templates put into SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adapterbot.records import BisectResult, Direction, MetricVerdict, Probe, Stage, Unit

# Half the width of a bar's drawing, and what of it the widest interval fills.
_HALF, _FILLED = 100.0, 92.0
# Of a timeline.
_WIDTH = 960.0
# A report is a stranger's: it may claim a billion checkpoints.
_MOST_CHECKPOINTS: Final = 10_000
_MOST_COLUMNS: Final = 120


@dataclass(frozen=True)
class IntervalBar:
    """A change with its interval on a scale from 0 to 200 whose middle means "the same".

    `worse` is the part of the scale (from, width) that lies beyond the margin; None where the
    metric has none.
    """

    low: float
    high: float
    point: float
    worse: tuple[float, float] | None


def interval_bars(metrics: Sequence[MetricVerdict]) -> tuple[IntervalBar | None, ...]:
    """One for each metric that has an interval. Fractions share a scale; any other number has one
    of its own, since milliseconds and perplexities are not to be compared."""
    shared = max((_reach(m) for m in metrics if m.delta.unit is Unit.FRACTION), default=0.0)
    return tuple(
        _bar(metric, shared if metric.delta.unit is Unit.FRACTION else _reach(metric))
        for metric in metrics
    )


def _reach(metric: MetricVerdict) -> float:
    """How far from zero the metric's own figures are."""
    interval = metric.delta.interval
    if interval is None or metric.delta.change is None:
        return 0.0
    figures = (interval.low, interval.high, metric.delta.change)
    return max(*map(abs, figures), metric.margin if metric.gated else 0.0)


def _bar(metric: MetricVerdict, reach: float) -> IntervalBar | None:
    interval, change = metric.delta.interval, metric.delta.change
    if interval is None or change is None:
        return None

    def x(value: float) -> float:
        share = value / reach if reach else 0.0
        return round(_HALF + _FILLED * min(max(share, -1.0), 1.0), 2)

    worse: tuple[float, float] | None = None
    if metric.gated:
        edge = x(metric.margin)
        far = 2 * _HALF - edge
        worse = (0.0, far) if metric.delta.direction is Direction.HIGHER else (edge, far)
    return IntervalBar(x(interval.low), x(interval.high), x(change), worse)


@dataclass(frozen=True)
class Column:
    """One checkpoint of a history, or several neighbours where there are many.

    `probability` that the first broken one is here; `probes` are those that were made here.
    """

    x: float
    probability: float
    label: str
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Timeline:
    """A history, oldest on the left; a column is `step` wide."""

    width: float
    step: float
    columns: tuple[Column, ...]


def timeline(found: BisectResult) -> Timeline | None:
    """The posterior over the checkpoints and where it was asked; None where there is none."""
    if not found.suspicions or not 2 <= found.checkpoints <= _MOST_CHECKPOINTS:
        return None
    per_column = -(-found.checkpoints // _MOST_COLUMNS)
    count = -(-found.checkpoints // per_column)
    shares, labels = [0.0] * count, [""] * count
    likeliest = [-1.0] * count
    for suspicion in found.suspicions:
        if suspicion.index >= found.checkpoints:
            continue
        column = suspicion.index // per_column
        shares[column] += suspicion.probability
        if suspicion.probability > likeliest[column]:
            likeliest[column], labels[column] = suspicion.probability, suspicion.label
    probes: list[list[Probe]] = [[] for _ in range(count)]
    for probe in found.probes:
        if probe.index < found.checkpoints:
            probes[probe.index // per_column].append(probe)
    step = round(_WIDTH / count, 2)
    return Timeline(
        width=_WIDTH,
        step=step,
        columns=tuple(
            Column(
                x=round(i * step, 2),
                probability=min(shares[i], 1.0),
                label=labels[i] or (probes[i][0].label if probes[i] else f"checkpoint {i}"),
                probes=tuple(probes[i]),
            )
            for i in range(count)
        ),
    )


@dataclass(frozen=True)
class TimedStage:
    """A stage, and its part of the whole time in percent."""

    stage: Stage
    start: float
    share: float


def timed(stages: Sequence[Stage]) -> tuple[TimedStage, ...]:
    """The stages one after the other, as a Gantt chart has them."""
    total = sum(stage.seconds for stage in stages)
    found: list[TimedStage] = []
    start = 0.0
    for stage in stages:
        share = 100 * stage.seconds / total if total else 0.0
        found.append(TimedStage(stage, round(start, 3), round(share, 3)))
        start += share
    return tuple(found)
