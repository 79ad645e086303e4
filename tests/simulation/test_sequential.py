"""Stopping early: how often it is wrong, and what it saves, in worlds whose truth is known."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from adapterbot.paired import Metric, pair
from adapterbot.records import Direction, MetricVerdict, Standing, Unit
from adapterbot.sequential import Sequential
from adapterbot.stats.betting import AnytimeDifference
from adapterbot.verdict import MetricPolicy, judge
from tests.simulation.worlds import (
    BINARY,
    FULL,
    GAUSSIAN,
    GRADED,
    HEAVY,
    RARELY_GRADED,
    World,
)

LOOKS = 20
ALPHA = 0.05
RUNS = 6000 if FULL else 600
SIZES = (100, 200, 1000)
WORLDS = (BINARY, GAUSSIAN, HEAVY)


def _overlap(rng: np.random.Generator, n: int, harm: float) -> tuple[np.ndarray, np.ndarray]:
    """A quarter of the answers overlap a little more or less with what was expected."""
    moved = np.where(rng.random(n) < 0.25, rng.uniform(-0.4, 0.4, n), 0.0)
    return np.full(n, 0.5), 0.5 + np.clip(moved - harm, -0.5, 0.5)


OVERLAP = World("overlap", _overlap, unit="fraction")


def slack(share: float) -> float:
    return 2.6 * math.sqrt(share * (1 - share) / RUNS)


def run(world: World, rng: np.random.Generator, n: int, harm: float) -> AnytimeDifference:
    baseline, candidate = world.draw(rng, n, harm)
    ends = tuple(int(end) for end in np.linspace(n / LOOKS, n, LOOKS))
    units = baseline - candidate
    return AnytimeDifference(
        units, np.ones(n), ends, world.unit == "fraction", float(units.mean()), 1.0
    )


@cache
def runs(world: World, n: int, harm: float) -> list[AnytimeDifference]:
    rng = np.random.default_rng([n, round(1e6 * harm), *world.name.encode()])
    return [run(world, rng, n, harm) for _ in range(RUNS)]


@cache
def detectable(world: World, n: int) -> float:
    """What a fixed comparison of all n samples reports, on average."""
    rng = np.random.default_rng([n, 1])
    metric = Metric("m", Direction.HIGHER, Unit(world.unit))
    reported = [
        pair(metric, *world.draw(rng, n, 0.0), resamples=200).detectable(ALPHA) for _ in range(60)
    ]
    return float(np.mean([value for value in reported if value is not None]))


def stopped_at(found: AnytimeDifference) -> int | None:
    """The look at which "no harm" was first refuted."""
    lost = found._path(found.units, 1.0) >= -math.log(ALPHA)
    return int(lost.argmax()) + 1 if lost.any() else None


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", [*WORLDS, OVERLAP], ids=str)
def test_false_alarms_under_twenty_looks(world: World, n: int) -> None:
    alarms = sum(stopped_at(found) is not None for found in runs(world, n, 0.0)) / RUNS
    print(f"{world} n={n}: {alarms:.3f}")
    assert alarms <= ALPHA


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_false_passes_under_twenty_looks(world: World, n: int) -> None:
    """The truth is exactly the margin."""
    margin = 2 * detectable(world, n)
    passes = sum(
        found.evidence_below(margin) >= -math.log(ALPHA) for found in runs(world, n, margin)
    )
    print(f"{world} n={n}: {passes / RUNS:.3f}")
    assert passes / RUNS <= ALPHA


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_samples_used_at_twice_the_detectable_drop(world: World, n: int) -> None:
    stops = [stopped_at(found) for found in runs(world, n, 2 * detectable(world, n))]
    used = float(np.mean([LOOKS if stop is None else stop for stop in stops])) / LOOKS
    found = sum(stop is not None for stop in stops) / RUNS
    print(f"{world} n={n}: {used:.2f} of the samples, {found:.3f} found")
    assert used <= 0.5
    assert found >= 0.95


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_samples_used_when_nothing_changed_and_the_margin_is_wide(world: World, n: int) -> None:
    margin = 2 * detectable(world, n)
    used = []
    for found in runs(world, n, 0.0):
        passed = found._path(margin - found.units, 1 - margin) >= -math.log(ALPHA)
        used.append((int(passed.argmax()) + 1 if passed.any() else LOOKS) / LOOKS)
    print(f"{world} n={n}: {np.mean(used):.2f} of the samples")
    assert float(np.mean(used)) <= 0.55


@pytest.mark.parametrize("n", [100, 200, 1000])
@pytest.mark.parametrize("world", [OVERLAP, RARELY_GRADED], ids=str)
def test_power_where_differences_are_small(world: World, n: int) -> None:
    """Attack: grades that move by little want larger stakes than there are, so that of the drops
    that were reported at 100 samples one in three was found, or one in two."""
    reported = [found.detectable(ALPHA) for found in runs(world, n, 0.0)[:200]]
    harm = float(np.mean([value for value in reported if value is not None]))
    power = sum(stopped_at(found) is not None for found in runs(world, n, harm)) / RUNS
    print(f"{world} n={n}: {power:.3f} at {harm:.4f}")
    assert 0.75 - slack(0.2) <= power <= 0.9 + slack(0.2)


@pytest.mark.parametrize("most", [3, 12])
def test_power_where_clusters_are_large(most: int) -> None:
    """The rows of a large cluster differ by little together: stakes on all of them are small."""

    def draw(harm: float) -> AnytimeDifference:
        rows = rng.integers(1, most + 1, 200)
        cluster = np.repeat(np.arange(200), rows)
        differs = rng.random(len(cluster)) < max(0.15, harm)
        worse = rng.random(len(cluster)) < (1 + harm / max(0.15, harm)) / 2
        units = np.bincount(cluster, weights=np.where(differs, np.where(worse, 1.0, -1.0), 0.0))
        ends = tuple(range(10, 201, 10))
        return AnytimeDifference(units / most, rows / most, ends, True, units.sum() / rows.sum(), 1)

    rng = np.random.default_rng([33, most])
    harm = float(np.mean([draw(0.0).detectable(ALPHA) for _ in range(100)]))
    power = sum(stopped_at(draw(harm)) is not None for _ in range(RUNS)) / RUNS
    print(f"{most}: {power:.3f} at {harm:.4f}")
    assert 0.75 - slack(0.2) <= power <= 0.9 + slack(0.2)


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_power_at_the_drop_that_is_reported_as_detectable(world: World, n: int) -> None:
    reported = [found.detectable(ALPHA) for found in runs(world, n, 0.0)[:200]]
    harm = float(np.mean([value for value in reported if value is not None]))
    power = sum(stopped_at(found) is not None for found in runs(world, n, harm)) / RUNS
    print(f"{world} n={n}: {power:.3f} at {harm / detectable(world, n):.2f} of the fixed one")
    assert 0.75 - slack(0.2) <= power <= 0.9


SAME = World("same", lambda _, n, harm: (np.ones(n), np.ones(n)), unit="fraction")


@pytest.mark.parametrize("world", [BINARY, GAUSSIAN, GRADED, RARELY_GRADED, SAME], ids=str)
def test_the_samples_that_would_settle_it_do(world: World) -> None:
    """Attack: what a fixed comparison needs settles every second sequential one."""
    margin = 0.15 if world.unit == "number" else 0.05
    metric = Metric("m", Direction.HIGHER, Unit(world.unit))
    rules = {"m": MetricPolicy(True, margin)}
    rng = np.random.default_rng([41, *world.name.encode()])

    def judged(n: int) -> MetricVerdict:
        process, size = Sequential(metric, margin=margin), max(math.ceil(n / LOOKS), 10)
        baseline, candidate = world.draw(rng, n, 0.0)
        for i in range(0, n, size):
            if process.update(baseline[i : i + size], candidate[i : i + size]):
                break
        return judge([process.paired()], rules)[0][0]

    first = [judged(60).delta.samples_needed for _ in range(RUNS // 10)]
    needed = int(np.median([said for said in first if said is not None]))
    settled = [judged(needed).standing is not Standing.INCONCLUSIVE for _ in range(RUNS // 3)]
    print(f"{world}: {np.mean(settled):.3f} by {needed}")
    assert 0.75 - 2 * slack(0.2) <= np.mean(settled)
    assert np.mean([judged(needed // 2).standing is Standing.INCONCLUSIVE for _ in range(60)]) > 0.2


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_the_public_class_stops_where_the_bets_do(world: World) -> None:
    rng = np.random.default_rng(5)
    n, harm = 200, 1.5 * detectable(world, 200)
    metric = Metric("m", Direction.HIGHER, Unit(world.unit))
    for _ in range(20):
        baseline, candidate = world.draw(rng, n, harm)
        process = Sequential(metric, margin=10 * harm)
        said = [
            process.update(baseline[i : i + 10], candidate[i : i + 10]) for i in range(0, n, 10)
        ]
        ends = tuple(range(10, n + 1, 10))
        units = baseline - candidate
        ordered = np.concatenate([np.sort(units[i : i + 10]) for i in range(0, n, 10)])
        found = AnytimeDifference(
            ordered, np.ones(n), ends, world.unit == "fraction", float(units.mean()), 1.0
        )
        stop = stopped_at(found)
        first = next((i + 1 for i, s in enumerate(said) if s is Standing.REGRESSED), None)
        assert first == stop


def documents(rng: np.random.Generator, long: float, short: float) -> AnytimeDifference:
    """400 documents of one row or of nine, in which a row is right or wrong, and loses or gains by
    the length of its document; one in twenty does either besides."""
    rows = np.where(rng.random(400) < 0.5, 1, 9)
    document = np.repeat(np.arange(400), rows)
    mean = np.where(rows == 9, long, short)[document]
    harm = np.where(rng.random(len(document)) < np.abs(mean), np.sign(mean), 0.0)
    harm += np.where(rng.random(len(document)) < 0.05, rng.choice([-1.0, 1.0], len(document)), 0.0)
    harm = np.clip(harm, -1, 1)
    units = np.bincount(document, weights=harm)
    ends = tuple(range(20, 401, 20))
    return AnytimeDifference(units / 9, rows / 9, ends, True, float(harm.mean()), 1.0)


def test_false_alarms_where_long_documents_gain_what_short_ones_lose() -> None:
    """The mean over rows is as it was; that over documents is 0.2 worse."""
    rng = np.random.default_rng(31)
    found = [documents(rng, -0.05, 0.45) for _ in range(RUNS)]
    alarms = sum(one.p_worse <= ALPHA and one.harm >= 0 for one in found) / RUNS
    print(f"{alarms:.3f}")
    assert alarms <= ALPHA


def test_false_passes_where_it_is_long_documents_that_lose() -> None:
    """The mean over rows is 0.09 worse; that over documents only 0.05."""
    rng = np.random.default_rng(32)
    found = [documents(rng, 0.1, 0.0) for _ in range(RUNS)]
    passes = sum(one.evidence_below(0.08) >= -math.log(ALPHA) for one in found) / RUNS
    print(f"{passes:.3f}")
    assert passes <= ALPHA
