"""What is promised with a percentage, held against worlds in which the truth is known.

Binary figures are enumerated and exact. The others are drawn; a limit is then the promise plus
2.6 standard errors of the count (one false failure in 200 if the promise is only just kept).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from adapterbot.paired import Metric, pair
from adapterbot.records import Comparison, Direction, MetricVerdict, Standing, Unit
from adapterbot.stats.distributions import log_factorials
from adapterbot.stats.effect import Effect, decisive_bounds
from adapterbot.stats.means import mean_difference
from adapterbot.stats.proportions import PairedProportions
from adapterbot.verdict import MetricPolicy, judge
from tests.simulation.worlds import (
    BINARY,
    CLUSTERED,
    CLUSTERED_BINARY,
    FULL,
    GAUSSIAN,
    GRADED,
    HALVES,
    HARDLY,
    HEAVY,
    RARELY_GRADED,
    SKEWED,
    SPARSE,
    World,
)

METRICS = 10
ALPHA = 0.05
SIZES = (30, 100, 1000)
DRAWS = {30: 1500, 100: 800, 1000: 150}
RESAMPLES = 1000
DRAWN = (GAUSSIAN, HEAVY, GRADED, CLUSTERED)


def draws(n: int) -> int:
    return DRAWS[n] * (10 if FULL else 1)


def slack(share: float, count: int) -> float:
    return 2.6 * math.sqrt(share * (1 - share) / count)


def effect(world: World, rng: np.random.Generator, n: int, harm: float) -> Effect:
    baseline, candidate = world.draw(rng, n, harm)
    labels = None if world.cluster_size == 1 else np.arange(n) // world.cluster_size
    if np.array_equal(baseline, candidate):
        return PairedProportions(n, 0, 0)
    found = mean_difference(baseline - candidate, labels, resamples=RESAMPLES)
    assert found is not None
    return found


@cache
def unchanged(world: World, n: int) -> list[Effect]:
    """Comparisons of adapters that do not differ."""
    rng = np.random.default_rng([n, *world.name.encode()])
    return [effect(world, rng, n, 0.0) for _ in range(draws(n))]


# ---------------------------------------------------------------- false alarms


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_false_alarms_among_ten_unchanged_metrics(world: World, n: int) -> None:
    """Holm's first step is α / 10; with all metrics unchanged nothing comes after it."""
    found = unchanged(world, n)
    level = ALPHA / METRICS
    alarms = sum(decisive_bounds(one, level)[0] > 0 for one in found) / len(found)
    familywise = 1 - (1 - alarms) ** METRICS
    print(f"{world} n={n}: {familywise:.3f} of {len(found) // METRICS} families")
    assert familywise <= ALPHA + METRICS * slack(level, len(found))


@pytest.mark.parametrize("discordant", [0.02, 0.05, 0.13, 0.3, 0.6])
@pytest.mark.parametrize("n", SIZES)
def test_false_alarms_among_ten_unchanged_binary_metrics(n: int, discordant: float) -> None:
    """Every table that could have been seen, with its probability."""
    alarms = sum(
        chance
        for (worse, better), chance in tables(n, discordant, 0.0).items()
        if worse > better
        and decisive_bounds(PairedProportions(n, worse, better), ALPHA / METRICS)[0] > 0
    )
    assert 1 - (1 - alarms) ** METRICS <= ALPHA


def tables(n: int, discordant: float, harm: float) -> dict[tuple[int, int], float]:
    """P(b, c) of the trinomial, leaving out what is rarer than 1e-7."""
    worse, better = (discordant + harm) / 2, (discordant - harm) / 2
    logs = log_factorials(n)
    reach = 6 * math.sqrt(n * discordant) + 6
    sides = [
        np.arange(max(0, int(n * p - reach)), min(n, int(n * p + reach)) + 1)
        for p in (worse, better)
    ]
    b, c = (grid.ravel() for grid in np.meshgrid(*sides, indexing="ij"))
    b, c = b[b + c <= n], c[b + c <= n]
    rest = n - b - c
    chance = np.exp(
        logs[n] - logs[b] - logs[c] - logs[rest]
        + b * math.log(worse) + c * math.log(better) + rest * math.log(1 - discordant)
    )  # fmt: skip
    likely = chance > 1e-7
    return {
        (int(x), int(y)): float(p)
        for x, y, p in zip(b[likely], c[likely], chance[likely], strict=True)
    }


def test_false_alarms_from_scores_to_verdict() -> None:
    """The whole way, ten metrics of five kinds."""
    n = 100
    rng = np.random.default_rng(11)
    kinds = (BINARY, GAUSSIAN, HEAVY, SPARSE, CLUSTERED) * 2
    families = 1000 if FULL else 80
    alarms = 0
    for _ in range(families):
        deltas = [
            pair(
                Metric(f"m{i}", Direction.HIGHER, Unit(world.unit)),
                *world.draw(rng, n, 0.0),
                clusters=world.clusters(n),
                resamples=RESAMPLES,
            )
            for i, world in enumerate(kinds)
        ]
        rules = {found.delta.task: MetricPolicy(True, 0.05) for found in deltas}
        alarms += any(m.standing is Standing.REGRESSED for m in judge(deltas, rules)[0])
    print(f"{alarms / families:.3f}")
    assert alarms / families <= ALPHA + slack(ALPHA, families)


@pytest.mark.parametrize("n", SIZES)
def test_one_metric_that_kept_its_mean_and_lost_its_symmetry(n: int) -> None:
    """Many small losses, few large gains. Flipping signs alone would call it worse too often.

    The alarm is one of a single metric at 5 %, allowed 2 points more: no test of a mean is exact
    under skewness.
    """
    found = unchanged(SKEWED, n)
    alarms = sum(decisive_bounds(one, ALPHA)[0] > 0 for one in found) / len(found)
    by_signs = sum(one.p_worse <= ALPHA for one in found) / len(found)
    print(f"n={n}: {alarms:.3f}, by sign flips alone {by_signs:.3f}")
    assert alarms <= ALPHA + 0.02 + slack(ALPHA, len(found))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_coverage_of_the_95_percent_interval(world: World, n: int) -> None:
    found = unchanged(world, n)
    covered = sum(low <= 0 <= high for low, high in (one.bounds(0.025) for one in found))
    share = covered / len(found)
    print(f"{world} n={n}: {share:.3f}")
    if n >= 100:
        assert 0.93 - slack(0.05, len(found)) <= share <= 0.97 + slack(0.05, len(found))
    else:
        assert share >= 0.90


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", [SKEWED, SPARSE, CLUSTERED_BINARY], ids=str)
def test_coverage_where_it_is_hard(world: World, n: int) -> None:
    """Not promised: skewed, mostly tied and clustered 0/1 differences may cover more than 97 %."""
    found = unchanged(world, n)
    covered = sum(low <= 0 <= high for low, high in (one.bounds(0.025) for one in found))
    share = covered / len(found)
    print(f"{world} n={n}: {share:.3f}")
    assert share >= 0.93 - slack(0.05, len(found))


@pytest.mark.parametrize("largest", [0.05, 0.3, 0.5, 0.9])
def test_coverage_where_one_document_holds_many_of_the_rows(largest: float) -> None:
    """Attack: 20 documents, one of them as long as all others together or longer. It pulls the mean
    towards itself and so looks exact; a drop as large as the margin passed in half of the runs."""
    rows = np.full(20, 1)
    rows[0] = round(19 * largest / (1 - largest))
    labels = np.repeat(np.arange(20), rows)
    rng = np.random.default_rng([9, rows[0]])
    count = draws(100)
    covered = passed = 0
    for _ in range(count):
        harm = rng.normal(size=20)[labels] + 0.3 * rng.normal(size=len(labels))
        found = mean_difference(harm, labels, resamples=RESAMPLES)
        assert found is not None
        low, high = found.bounds(0.025)
        covered += low <= 0 <= high
        passed += found.bounds(0.05)[1] < 0
    print(f"{largest:.0%}: {covered / count:.3f}, passes {passed / count:.3f}")
    assert covered / count >= 0.93 - slack(0.05, count)
    assert passed / count <= 0.05 + slack(0.05, count)


@pytest.mark.parametrize(
    ("n", "discordant", "harm"),
    [
        (30, 0.13, 0.0), (30, 0.3, 0.09), (30, 0.3, 0.25),
        (100, 0.13, 0.0), (100, 0.13, 0.05), (100, 0.3, 0.0), (100, 0.3, 0.25),
        (1000, 0.13, 0.0), (1000, 0.13, 0.05), (1000, 0.02, 0.01),
    ],
)  # fmt: skip
def test_coverage_of_binary_intervals(n: int, discordant: float, harm: float) -> None:
    covered = 0.0
    for (worse, better), chance in tables(n, discordant, harm).items():
        # Tables in the bulk are wide of the edge; only the others cost a bound.
        if abs(worse - better - n * harm) < 0.8 * math.sqrt(n * discordant):
            covered += chance
            continue
        low, high = PairedProportions(n, worse, better).bounds(0.025)
        covered += chance * (low <= harm <= high)
    print(f"n={n} {discordant:.0%} {harm:.0%}: {covered:.4f}")
    assert (0.93 if n >= 100 else 0.90) <= covered <= (0.97 if n >= 100 else 1)


# ---------------------------------------------------------------- power


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_power_at_the_reported_detectable_harm(world: World, n: int) -> None:
    reported = [one.detectable(ALPHA) for one in unchanged(world, n)[:200]]
    harm = float(np.mean([value for value in reported if value is not None]))
    rng = np.random.default_rng([n, 7, *world.name.encode()])
    count = draws(n)
    hits = sum(decisive_bounds(effect(world, rng, n, harm), ALPHA)[0] > 0 for _ in range(count))
    print(f"{world} n={n}: {hits / count:.3f} at {harm:.3f}")
    assert 0.75 - slack(0.2, count) <= hits / count <= 0.85 + slack(0.2, count)


@pytest.mark.parametrize("n", [20, 40, 100])
@pytest.mark.parametrize("world", [RARELY_GRADED, HALVES, HARDLY], ids=str)
def test_power_where_most_scores_tie(world: World, n: int) -> None:
    """Attack: where few differ, normal theory promised 80 % for drops that were found one time in
    two: more would have had to differ, as many as it takes for their signs to be significant."""
    rng = np.random.default_rng([n, 8, *world.name.encode()])
    reported = [effect(world, rng, n, 0.0).detectable(ALPHA) for _ in range(200)]
    harms = rng.choice([value for value in reported if value is not None], draws(100))
    found = [decisive_bounds(effect(world, rng, n, harm), ALPHA)[0] > 0 for harm in harms]
    print(f"{world} n={n}: {np.mean(found):.3f} at {np.mean(harms):.3f}")
    # Of 20 the interval now and then holds back what the signs would say.
    least = 0.65 if n == 20 else 0.75
    assert least - slack(0.2, len(found)) <= np.mean(found) <= 0.85 + slack(0.2, len(found))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("discordant", [0.05, 0.13, 0.3])
@pytest.mark.parametrize("level", [ALPHA, ALPHA / METRICS])
def test_power_of_binary_metrics(n: int, discordant: float, level: float) -> None:
    """Averaged over the harms that unchanged data of this kind would report as detectable."""
    power = 0.0
    reports = tables(n, discordant, 0.0)
    total = 0.0
    by_count: dict[int, float] = {}
    for (worse, better), chance in reports.items():
        by_count[worse + better] = by_count.get(worse + better, 0.0) + chance
    rng = np.random.default_rng(3)
    for seen, chance in by_count.items():
        harm = PairedProportions(n, seen, 0).detectable(level)
        if harm is None or chance < 0.02:
            continue
        share = max(discordant, harm)
        drawn = rng.multinomial(n, [(share + harm) / 2, (share - harm) / 2, 1 - share], size=300)
        found, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
        hits = sum(
            k
            for (b, c), k in zip(found, times, strict=True)
            if b > c and decisive_bounds(PairedProportions(n, int(b), int(c)), level)[0] > 0
        )
        power += chance * hits / 300
        total += chance
    print(f"n={n} {discordant:.0%} level {level}: {power / total:.3f}")
    assert 0.75 <= power / total <= 0.85


def test_the_power_of_ten_metrics_with_one_regression() -> None:
    """What the table reports beside nine other metrics is what Holm's first step needs."""
    rng = np.random.default_rng(21)
    n, families = 400, 2000 if FULL else 200
    rules = {f"m{i}": MetricPolicy(True, 0.05) for i in range(METRICS)}

    def family(harm: float) -> list[MetricVerdict]:
        deltas = [
            pair(
                Metric(f"m{i}", Direction.HIGHER, Unit.FRACTION),
                *BINARY.draw(rng, n, harm if i == 0 else 0.0),
            )
            for i in range(METRICS)
        ]
        assert all(d.delta.outcome is Comparison.COMPARED for d in deltas)
        return list(judge(deltas, rules)[0])

    reported = [family(0.0)[0].delta.min_detectable for _ in range(40)]
    harm = float(np.mean(reported))
    hits = sum(family(harm)[0].standing is Standing.REGRESSED for _ in range(families))
    print(f"{hits / families:.3f} at {harm:.3f}")
    assert 0.75 - slack(0.2, families) <= hits / families <= 0.85 + slack(0.2, families)
