"""Chunk by chunk: what settles, what never may, and what no order of looks changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.paired import Metric
from adapterbot.records import Comparison, Direction, MetricDelta, Standing, Unit
from adapterbot.sequential import Sequential
from adapterbot.stats import betting
from adapterbot.stats.betting import AnytimeDifference
from adapterbot.verdict import MetricPolicy, judge

FRACTION = Metric("dates", Direction.HIGHER)
NUMBER = Metric("perplexity", Direction.LOWER, unit=Unit.NUMBER)


def told(metric: Metric, harms: np.ndarray, chunk: int = 10, **options):
    """A run over harms, and what it said after each chunk."""
    run = Sequential(metric, **{"margin": 0.1, **options})
    base = np.full(len(harms), 0.5)
    sign = -1 if metric.direction is Direction.HIGHER else 1
    said = [
        run.update(base[i : i + chunk], base[i : i + chunk] + sign * harms[i : i + chunk])
        for i in range(0, len(harms), chunk)
    ]
    return run, said


def test_a_clear_drop_is_settled_at_once() -> None:
    run, said = told(FRACTION, np.full(40, 0.5))
    assert said[1] is Standing.REGRESSED
    found = run.paired().delta
    assert found.n == 40
    assert found.change == -0.5
    assert found.p_worse is not None
    assert found.p_worse < 0.001


def test_no_change_is_ok_once_the_margin_is_excluded() -> None:
    run, said = told(FRACTION, np.zeros(100))
    first = said.index(Standing.OK)
    assert said[:first] == [None] * first
    assert 2 <= first <= 6
    found = run.paired().delta
    assert found.outcome is Comparison.IDENTICAL
    assert found.harm_high is not None
    assert found.harm_high < 0.1
    (metric,), _ = judge([run.paired()], {"dates": MetricPolicy(True, 0.1)})
    assert metric.standing is Standing.OK


def test_what_is_settled_stays_settled_in_the_verdict() -> None:
    """Others may still be running; more samples of this one must not unsettle it."""
    rng = np.random.default_rng(0)
    harms = np.concatenate([np.full(30, 0.4), rng.uniform(-0.4, 0.4, 170)])
    run, said = told(FRACTION, harms)
    assert said[2] is Standing.REGRESSED
    assert said[-1] is Standing.REGRESSED
    (metric,), _ = judge([run.paired()], {"dates": MetricPolicy(True, 0.1)})
    assert metric.standing is Standing.REGRESSED


def test_the_standardised_effect_is_that_of_all_samples_at_once() -> None:
    harms = np.random.default_rng(5).uniform(-0.2, 0.4, 30)
    run, _ = told(FRACTION, harms)
    found = run.paired().delta.effect_size
    assert found == pytest.approx(-harms.mean() / harms.std(ddof=1))


def test_levels_are_kept_apart() -> None:
    harms = np.tile([0.5, 0.0, 0.0, 0.5, 0.0], 4)
    assert told(FRACTION, harms, alpha=0.2)[1][-1] is Standing.REGRESSED
    assert told(FRACTION, harms, alpha=0.2, alpha_worse=0.001)[1][-1] is None
    assert told(FRACTION, harms, alpha=0.2, least_effect=0.3)[1][-1] is None


def test_too_few_samples_settle_nothing() -> None:
    assert told(FRACTION, np.full(9, 0.5), chunk=3)[1] == [None, None, None]
    run = Sequential(FRACTION, margin=0.1)
    assert run.update([], []) is None
    assert run.update([1.0], [0.0]) is None
    found = run.paired().delta
    assert found.outcome is Comparison.TOO_FEW
    assert (found.interval, found.p_worse) == (None, None)


def test_nothing_yet_is_empty() -> None:
    assert Sequential(FRACTION, margin=0.1).paired().delta.outcome is Comparison.EMPTY


def test_a_missing_score_is_not_judged() -> None:
    run = Sequential(FRACTION, margin=0.1)
    assert run.update([1.0, math.nan], [0.0, 0.0]) is Standing.NOT_JUDGED
    assert run.update(np.ones(20), np.zeros(20)) is Standing.NOT_JUDGED
    found = run.paired().delta
    assert found.outcome is Comparison.INCOMPLETE
    assert found.note.startswith("1 of 22 samples")


def test_fractions_lie_between_zero_and_one() -> None:
    with pytest.raises(InputError, match="must lie in 0…1"):
        Sequential(FRACTION, margin=0.1).update([0.5], [1.5])


def test_clusters_count_once_and_are_not_continued() -> None:
    run = Sequential(FRACTION, margin=0.1, largest_cluster=19)
    run.update(np.ones(20), np.zeros(20), clusters=["a"] * 19 + ["b"])
    assert run.paired().delta.n == 20
    assert run.paired().delta.outcome is Comparison.TOO_FEW
    with pytest.raises(InputError, match="continued in another chunk"):
        run.update([1.0], [1.0], clusters=["b"])
    with pytest.raises(InputError, match="larger than was said"):
        run.update(np.ones(20), np.ones(20), clusters=["c"] * 20)


def test_clusters_of_one_size_are_their_means() -> None:
    rng = np.random.default_rng(2)
    harms = np.repeat(rng.uniform(-0.4, 0.5, 20), 3)
    run = Sequential(FRACTION, margin=0.1, largest_cluster=3)
    single = Sequential(FRACTION, margin=0.1)
    base = np.full(60, 0.5)
    run.update(base, base - harms, clusters=np.repeat(np.arange(20), 3).tolist())
    single.update(base[:20], base[:20] - harms[::3])
    assert run.paired().delta.p_worse == pytest.approx(single.paired().delta.p_worse)


@pytest.mark.parametrize("metric", [FRACTION, NUMBER], ids=lambda metric: metric.unit)
def test_the_change_lies_in_its_interval_where_clusters_differ_in_size(metric: Metric) -> None:
    """Long documents lose what short ones do not: 0.36 over samples, 0.2 over documents. An
    interval of the mean over documents would hold another figure than the change beside it."""
    sizes = np.tile([1, 9], 100)
    labels = np.repeat(np.arange(200), sizes)
    noise = np.random.default_rng(3).uniform(-0.1, 0.1, len(labels))
    harm = np.where(sizes[labels] == 9, 0.4, 0.0) + noise
    sign = -1 if metric.direction is Direction.HIGHER else 1
    run = Sequential(metric, margin=0.1, largest_cluster=9)
    for start in range(0, 200, 10):
        now = (labels >= start) & (labels < start + 10)
        base = np.full(now.sum(), 0.5)
        run.update(base, base + sign * harm[now], clusters=labels[now].tolist())
    found = run.paired().delta
    assert found.change is not None
    assert found.change == pytest.approx(sign * 0.36, abs=0.01)
    assert found.interval is not None
    assert found.interval.low < found.change < found.interval.high


@settings(max_examples=60)
@given(st.lists(st.integers(-4, 4).map(lambda v: v / 8), min_size=20, max_size=60), st.booleans())
def test_swapping_the_sides_mirrors_and_order_in_a_chunk_is_nothing(harms, number: bool) -> None:
    metric = NUMBER if number else FRACTION
    array = np.array(harms)
    left = told(metric, array)[0].paired().delta
    right = told(metric, -array)[0].paired().delta
    assert (left.p_worse, left.p_better) == pytest.approx((right.p_better, right.p_worse))
    if left.interval is not None and right.interval is not None:
        assert left.interval.low == pytest.approx(-right.interval.high, abs=1e-9)
    mixed = np.concatenate([array[i : i + 10][::-1] for i in range(0, len(array), 10)])
    again = told(metric, mixed)[0].paired().delta
    assert figures(again) == figures(left)


def figures(found: MetricDelta) -> tuple[object, ...]:
    return found.p_worse, found.p_better, found.interval, found.harm_low, found.harm_high


@settings(max_examples=60)
@given(st.lists(st.integers(-4, 4).map(lambda v: v / 8), min_size=12, max_size=40))
def test_evidence_falls_as_the_claim_grows(harms) -> None:
    effect = AnytimeDifference(
        np.array(harms), np.ones(len(harms)), (6, len(harms)), True, 0.0, 1.0
    )
    claims = np.linspace(-0.95, 0.95, 9)
    above = [effect.evidence_above(c) for c in claims]
    below = [effect.evidence_below(c) for c in claims]
    assert above == sorted(above, reverse=True)
    assert below == sorted(below)
    low, high = effect.bounds(0.05)
    assert -1 <= low <= high <= 1
    if low > -1:
        assert effect.evidence_above(low) == pytest.approx(math.log(20), abs=1e-4)
    if high < 1:
        assert effect.evidence_below(high) == pytest.approx(math.log(20), abs=1e-4)


@pytest.mark.parametrize("bounded", [True, False])
def test_every_gain_has_mean_one_or_less_when_its_claim_is_true(bounded: bool) -> None:
    """E[g] ≤ 1, exactly, over two-point distributions at the edge of the claim."""
    for claim in (-0.5, 0.0, 0.3):
        for reach in (0.05, 0.4):
            points = [claim - reach, claim + reach] if not bounded else [-1.0, claim + reach]
            share = 0.5 if not bounded else reach / (1 + claim + reach)
            means = []
            for point in points:
                # One look each: evidence is the log of the mixture's gain.
                one = AnytimeDifference(np.array([point]), np.ones(1), (1,), bounded, 0.0, 1.0)
                means.append(math.exp(one.evidence_above(claim)))
            assert share * means[0] + (1 - share) * means[1] == pytest.approx(1.0)


def test_a_number_without_enough_looks_has_no_bound() -> None:
    """Stakes are capped, so a handful of samples proves nothing however large the differences."""
    run, said = told(NUMBER, np.linspace(5, 6, 10), margin=0.1, alpha=0.05, alpha_worse=1e-5)
    assert said == [None]
    found = run.paired(level=1 - 1e-6)
    assert found.delta.interval is None
    assert found.delta.harm_low is None
    assert found.bounds(1e-6) is None
    (metric,), _ = judge([found], {"perplexity": MetricPolicy(True, 0.1)}, alpha=1e-5)
    assert metric.standing is Standing.INCONCLUSIVE


def test_equal_numbers_are_ok_after_enough_of_them() -> None:
    run = Sequential(NUMBER, margin=0.25)
    said = [run.update([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) for _ in range(12)]
    assert said[:4] == [None] * 4
    assert said[-1] is Standing.OK
    assert run.paired().delta.p_worse == 1.0
    assert run.paired().delta.outcome is Comparison.IDENTICAL


def test_one_and_the_same_number_never_settles() -> None:
    run, said = told(NUMBER, np.zeros(100), margin=0.25)
    assert set(said) == {None}
    assert run.paired().delta.note.startswith("no score differs, and nothing shows")


def test_clusters_that_cancel_inside_are_not_identical() -> None:
    run = Sequential(NUMBER, margin=0.25, largest_cluster=2)
    run.update(np.zeros(40), np.tile([0.5, -0.5], 20), clusters=[i // 2 for i in range(40)])
    found = run.paired().delta
    assert found.outcome is Comparison.COMPARED
    assert found.p_worse == 1.0


def test_a_first_chunk_without_differences_does_not_end_the_betting() -> None:
    rng = np.random.default_rng(1)
    harms = np.concatenate([np.zeros(10), rng.normal(1.0, 0.5, 60)])
    assert told(NUMBER, harms, margin=5.0)[1][-1] is Standing.REGRESSED


def test_stakes_leave_some_wealth() -> None:
    assert betting._BOUNDED_STAKES.max() < 1
