"""Each promise that has a percentage in it, once and with few draws.

The whole table, over every size and kind of data, is tests/simulation; limits here are wider by the
2.6 standard errors of so few draws.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from adapterbot.stats.effect import Effect, decisive_bounds
from adapterbot.stats.proportions import PairedProportions
from tests.simulation.test_known_truth import ALPHA, METRICS, effect, slack, tables
from tests.simulation.test_sequential import LOOKS, detectable, run, stopped_at
from tests.simulation.worlds import BINARY, CLUSTERED, GAUSSIAN, HEAVY, World

N = 100
DRAWS = 300
DRAWN = (GAUSSIAN, HEAVY, CLUSTERED)


@cache
def unchanged(world: World) -> list[Effect]:
    rng = np.random.default_rng([5, *world.name.encode()])
    return [effect(world, rng, N, 0.0) for _ in range(DRAWS)]


@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_ten_unchanged_metrics_rarely_raise_an_alarm(world: World) -> None:
    level = ALPHA / METRICS
    alarms = sum(decisive_bounds(one, level)[0] > 0 for one in unchanged(world)) / DRAWS
    assert alarms <= level + slack(level, DRAWS)


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_ten_unchanged_binary_metrics_rarely_raise_an_alarm(n: int) -> None:
    """Enumerated, so exact."""
    alarms = sum(
        chance
        for (worse, better), chance in tables(n, 0.13, 0.0).items()
        if worse > better
        and decisive_bounds(PairedProportions(n, worse, better), ALPHA / METRICS)[0] > 0
    )
    assert 1 - (1 - alarms) ** METRICS <= ALPHA


@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_intervals_cover(world: World) -> None:
    bounds = [one.bounds(0.025) for one in unchanged(world)]
    covered = sum(low <= 0 <= high for low, high in bounds) / DRAWS
    assert 0.93 - slack(0.05, DRAWS) <= covered <= 0.97 + slack(0.05, DRAWS)


@pytest.mark.parametrize("world", DRAWN, ids=str)
def test_the_reported_drop_is_found_four_times_in_five(world: World) -> None:
    reported = [one.detectable(ALPHA) for one in unchanged(world)[:100]]
    harm = float(np.mean([value for value in reported if value is not None]))
    rng = np.random.default_rng([6, *world.name.encode()])
    found = sum(decisive_bounds(effect(world, rng, N, harm), ALPHA)[0] > 0 for _ in range(DRAWS))
    assert 0.75 - slack(0.2, DRAWS) <= found / DRAWS <= 0.85 + slack(0.2, DRAWS)


@pytest.mark.parametrize("world", [BINARY, HEAVY], ids=str)
def test_twenty_looks_raise_no_alarm_and_save_half_of_a_clear_case(world: World) -> None:
    rng = np.random.default_rng([7, *world.name.encode()])
    alarms = sum(stopped_at(run(world, rng, 200, 0.0)) is not None for _ in range(DRAWS))
    assert alarms / DRAWS <= ALPHA
    harm = 2 * detectable(world, 200)
    stops = [stopped_at(run(world, rng, 200, harm)) or math.inf for _ in range(DRAWS)]
    assert float(np.mean([min(stop, LOOKS) for stop in stops])) / LOOKS <= 0.5
    assert sum(math.isfinite(stop) for stop in stops) / DRAWS >= 0.95
