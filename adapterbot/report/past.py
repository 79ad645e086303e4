"""Trends as lines: a metric's past levels and the candidate's, on a scale of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from adapterbot.pages.figures import Compact
from adapterbot.pages.inert import Inert
from adapterbot.records import AdapterReport
from adapterbot.records.history import Trend

_WIDTH: Final = 200.0
_TOP: Final = 6.0
_HEIGHT: Final = 24.0
_EDGE: Final = 6.0


@dataclass(frozen=True)
class PastLine:
    """One metric. `runs` are its unbroken stretches as SVG wants them; `now` is the candidate."""

    metric: str
    runs: tuple[str, ...]
    now: tuple[float, float] | None
    lowest: Inert
    highest: Inert
    last: Inert
    candidate: Inert


def lines(adapter: AdapterReport) -> tuple[PastLine, ...]:
    """One for each metric that has a past."""
    now = {metric.delta.metric: metric.delta.candidate for metric in adapter.metrics}
    return tuple(_line(trend, now.get(trend.metric)) for trend in adapter.trends if trend.points)


def _line(trend: Trend, candidate: float | None) -> PastLine:
    levels = [*(point.value for point in trend.points), candidate]
    known = [level for level in levels if level is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    span = high - low

    def place(i: int, level: float) -> tuple[float, float]:
        x = _EDGE + (_WIDTH - 2 * _EDGE) * i / (len(levels) - 1)
        share = (level - low) / span if span else 0.5
        return round(x, 1), round(_TOP + _HEIGHT * (1 - share), 1)

    scale = Compact.of(trend.unit, *known)
    return PastLine(
        metric=trend.metric,
        runs=tuple(
            " ".join("{},{}".format(*place(i, level)) for i, level in run)
            for run in _unbroken(levels)
        ),
        now=None if candidate is None else place(len(levels) - 1, candidate),
        lowest=scale.level(low if known else None),
        highest=scale.level(high if known else None),
        last=scale.level(trend.points[-1].value),
        candidate=scale.level(candidate),
    )


def _unbroken(levels: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Stretches without a gap: a commit without a level is not drawn over."""
    run: list[tuple[int, float]] = []
    for i, level in enumerate(levels):
        if level is not None:
            run.append((i, level))
        elif run:
            yield run
            run = []
    if run:
        yield run
