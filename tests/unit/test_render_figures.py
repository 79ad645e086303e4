"""Numbers as they are written in a comment."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import render
from adapterbot.pages import figures
from adapterbot.pages.figures import Scale
from adapterbot.pages.inert import Inert
from adapterbot.records import Direction, Interval, MetricVerdict, Outcome, Unit
from tests.golden.reports import adapter, metric, report


def scale(unit: Unit, baseline: float, change: float | None = None) -> Scale:
    change = 0.0 if change is None else change
    return Scale.of(metric("t", baseline, baseline + change, unit=unit).delta)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (scale(Unit.FRACTION, 0.5).level(0.925), "92.5\u202f%"),
        (scale(Unit.FRACTION, 0.5).level(-0.0), "0.0\u202f%"),
        (scale(Unit.FRACTION, 0.5).level(None), "–"),
        (scale(Unit.FRACTION, 0.5).level(1e308), "1.00·10^310\u202f%"),
        (scale(Unit.FRACTION, 0.5).change(-0.45), "−45.0\u202fpts"),
        (scale(Unit.FRACTION, 0.5).change(-1e-9), "≈\u202f0\u202fpts"),
        (scale(Unit.FRACTION, 0.5).change(-0.0), "0.0\u202fpts"),
        (scale(Unit.FRACTION, 0.5).change(None), "–"),
        (scale(Unit.NUMBER, 5.678, 0.1).level(5.678), "5.678"),
        (scale(Unit.NUMBER, 1234.5, 0.0).level(1234.5), "1234"),
        (scale(Unit.NUMBER, 1234.5, 0.03).change(0.03), "+0.030"),
        (scale(Unit.NUMBER, 0.0, 0.0).change(0.0), "0.000"),
        (scale(Unit.NUMBER, 1e12).level(-1e12), "−1.00·10^12"),
        (scale(Unit.NUMBER, 5e-324).level(5e-324), "0.000000"),
        (scale(Unit.NUMBER, 1.0).interval(None), "–"),
        (scale(Unit.NUMBER, 1.0).detectable(None, Direction.LOWER), "–"),
        (figures.share(0.999), ">\u202f99\u202f%"),
        (figures.share(0.001), "<\u202f1\u202f%"),
        (figures.share(1.0), "100\u202f%"),
        (figures.share(0.0), "0\u202f%"),
        (figures.share(None), "–"),
        (figures.p_value(0.0), "<0.001"),
        (figures.p_value(0.0499), "0.050"),
        (figures.score(None, ticked=True), "not scored"),
        (figures.score(1.0, ticked=True), "✓"),
        (figures.score(-0.0, ticked=True), "✗"),
        (figures.score(-0.25, ticked=True), "−0.25"),
        (figures.score(1.0, ticked=False), "1"),
        (figures.score(-0.0, ticked=False), "0"),
        (figures.duration(59.96), "1\u202fmin 0\u202fs"),
        (figures.duration(3.42), "3.4\u202fs"),
        (figures.duration(3725), "1\u202fh 2\u202fmin"),
        (figures.fixed(-0.0), "0.000"),
        (figures.fixed(0.0004, signed=True), "0.000"),
        (figures.fixed(0.02, signed=True), "+0.020"),
        (figures.fixed(-0.07362, signed=True), "−0.074"),
        (figures.fixed(-1e300), "−1e+300"),
        (figures.fixed(None), "–"),
        (figures.whole(30_123_456), "30,123,456"),
        (figures.count(1, "sample"), "1 sample"),
        (figures.count(1200, "sample"), "1,200 samples"),
        (figures.count(0, "sample"), "0 samples"),
    ],
)
def test_figures(written: Inert, expected: str) -> None:
    assert written == expected


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(list(Unit)),
)
def test_no_figure_is_odd(baseline: float, value: float, unit: Unit) -> None:
    delta = metric("t", baseline, None, unit=unit).delta.model_copy(update={"change": value})
    here = Scale.of(delta)
    low, high = sorted((baseline, value))
    for text in (
        here.level(value),
        here.change(value),
        here.detectable(value, Direction.LOWER),
        here.interval(Interval(low=low, high=high, level=0.9)),
        figures.score(value, ticked=True),
        figures.score(value, ticked=False),
    ):
        assert not re.search(r"nan|inf|-|−0(\.0+)?(?![.0-9])", text, re.IGNORECASE), text
        assert len(text) < 60


def test_the_level_of_the_interval_heads_its_column() -> None:
    def level(value: float) -> MetricVerdict:
        return metric("t", 0.5, 0.5).model_copy(
            update={
                "delta": metric(f"t{value}", 0.5, 0.5).delta.model_copy(
                    update={"interval": Interval(low=0, high=0, level=value)}
                )
            }
        )

    one = report(adapter(Outcome.PASSED, metrics=(level(0.9),)))
    two = report(adapter(Outcome.PASSED, metrics=(level(0.9), level(0.8))))
    assert "| 90\u202f% interval |" in render.comment(one, one.adapters[0])
    assert "| Interval |" in render.comment(two, two.adapters[0])
