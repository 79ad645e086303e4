"""CMA-ES: it solves what it should, from any start, and resumes bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.merge import CMAES
from adapterbot.merge.parameters import Parameters, default_population
from adapterbot.merge.restarts import Restarts


def sphere(x: Any) -> Any:
    return (x**2).sum(-1)


def ellipsoid(x: Any) -> Any:
    return (10 ** (6 * np.arange(x.shape[-1]) / max(x.shape[-1] - 1, 1)) * x**2).sum(-1)


def minimise(
    search: CMAES | Restarts, loss: Callable[[Any], Any], target: float, limit: int = 20_000
) -> int | None:
    spent = 0
    while spent < limit:
        points = search.ask()
        losses = loss(points)
        spent += len(points)
        if losses.min() < target:
            return spent
        search.tell(points, losses)
        if isinstance(search, CMAES) and search.stop():
            return None
    return None


@pytest.mark.parametrize("n", [1, 2, 3, 7, 15])
def test_strategy_parameters_obey_table_1(n: int) -> None:
    for population in (2, 3, 4, 5, default_population(n), 50, 256):
        s = Parameters.default(n, population)
        mu = population // 2
        assert s.weights.shape == (population,)
        assert s.weights[:mu].sum() == pytest.approx(1)
        assert (np.diff(s.weights) <= 0).all()
        assert s.mu_eff == pytest.approx(1 / np.square(s.weights[:mu]).sum())
        assert 0 < s.c_1 + s.c_mu <= 1
        # (52): C stays positive definite, for the decay never exceeds what is there.
        negative = s.weights[s.weights < 0]
        assert 1 - s.c_1 - s.c_mu + n * s.c_mu * negative.sum() >= -1e-12


@pytest.mark.parametrize(("n", "evaluations"), [(1, 200), (3, 600), (7, 1400), (15, 2800)])
def test_the_sphere_takes_about_as_many_evaluations_as_pycma(n: int, evaluations: int) -> None:
    """pycma's medians are 373, 1015 and 2125 for n = 3, 7, 15; this is a bound on single runs."""
    for seed in range(3):
        spent = minimise(CMAES(np.full(n, 2.0), 0.5, seed=seed), sphere, 1e-8)
        assert spent is not None
        assert spent < evaluations


def test_turning_the_ellipsoid_changes_nothing_much() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    plain = minimise(CMAES(np.ones(5), 0.5, seed=1), ellipsoid, 1e-8)
    turned = minimise(CMAES(np.ones(5), 0.5, seed=1), lambda x: ellipsoid(x @ turn), 1e-8)
    assert plain is not None
    assert turned is not None
    assert 0.6 < plain / turned < 1.7


@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15)
def test_only_the_ranks_of_losses_count(scale: float, shift: float, seed: int) -> None:
    """Any increasing function of the loss gives the same search, point by point."""
    plain, bent = (CMAES([1.0, -2.0, 0.5], 0.3, seed=seed) for _ in range(2))
    for _ in range(8):
        x, y = plain.ask(), bent.ask()
        assert np.array_equal(x, y)
        plain.tell(x, sphere(x))
        bent.tell(y, np.arctan(sphere(y)) * scale + shift)


def test_the_order_of_the_population_does_not_count() -> None:
    one, other = (CMAES([1.0, -2.0, 0.5], 0.3, seed=3) for _ in range(2))
    shuffle = np.random.default_rng(0)
    for _ in range(10):
        x, y = one.ask(), other.ask()
        np.testing.assert_allclose(x, y, rtol=1e-9)
        one.tell(x, sphere(x))
        order = shuffle.permutation(len(y))
        other.tell(y[order], sphere(y[order]))


def test_samples_are_normal() -> None:
    """Orthogonal or not, each point alone is N(m, σ²C)."""
    search = CMAES(np.zeros(4), 2.0, 6, seed=5)
    draws = np.array([search.ask() for _ in range(10_000)])
    for index in range(6):
        np.testing.assert_allclose(draws[:, index].mean(0), 0, atol=0.1)
        np.testing.assert_allclose(np.cov(draws[:, index].T), 4 * np.eye(4), atol=0.3)
        radii = np.square(draws[:, index] / 2).sum(1)
        assert radii.var() == pytest.approx(8, rel=0.08)  # χ² with 4 degrees of freedom


@pytest.mark.parametrize("n", [1, 4])
def test_its_width_is_that_of_what_it_draws(n: int) -> None:
    """σ is not: where noise moves it, C moves against it."""
    search, noise = CMAES(np.full(n, 0.8), 0.35, population=8, seed=2), np.random.default_rng(2)
    for _ in range(40):
        points = search.ask()
        search.tell(points, np.square(points).sum(1) + 0.05 * noise.normal(size=8))
    drawn = np.concatenate([search.ask() for _ in range(500)])
    assert search.width == pytest.approx(math.sqrt(drawn.var(axis=0).mean()), rel=0.1)
    assert search.width < search.sigma / 2


@pytest.mark.parametrize("bounds", [None, [[-3, 3], [-3, 3], [0.1, 3]]])
def test_a_state_goes_on_bit_for_bit(bounds: list[list[float]] | None) -> None:
    for make in (CMAES, Restarts):
        search: Any = make([1.0, -2.0, 0.5], 0.3, bounds=bounds, seed=11)
        for generation in range(250):
            if generation % 60 == 7:
                resumed = make.from_state(json.loads(json.dumps(search.state())))
            points = search.ask()
            search.tell(points, sphere(points))
            if generation >= 7:
                again = resumed.ask()
                assert np.array_equal(points, again)
                resumed.tell(again, sphere(again))
                assert resumed.state() == search.state()


def test_bounds_are_kept() -> None:
    search = CMAES([0.5, 0.5], 1.0, bounds=[[0, 1], [0.2, 0.8]], seed=0)
    for _ in range(40):
        points = search.ask()
        assert ((points >= [0, 0.2]) & (points <= [1, 0.8])).all()
        search.tell(points, ((points - [2.0, 0.2]) ** 2).sum(1))
    np.testing.assert_allclose(search.mean, [1, 0.2], atol=0.02)


def test_failures_rank_last() -> None:
    search = CMAES(np.ones(3), 0.5, seed=0)
    for generation in range(120):
        points = search.ask()
        losses = sphere(points)
        losses[generation % len(losses)] = math.inf
        search.tell(points, losses)
    assert sphere(search.mean) < 1e-6
    with pytest.raises(ValueError, match="is NaN"):
        search.tell(search.ask(), np.full(search.population, math.nan))


def test_every_loss_infinite_does_not_break_it() -> None:
    search = CMAES(np.ones(3), 0.5, seed=0)
    for _ in range(60):
        search.tell(search.ask(), np.full(search.population, math.inf))
    assert np.isfinite(search.ask()).all()
    assert CMAES.from_state(json.loads(json.dumps(search.state()))).state() == search.state()


def test_a_flat_function_stops() -> None:
    search = CMAES(np.ones(3), 0.5, seed=0)
    while not search.stop():
        points = search.ask()
        search.tell(points, np.zeros(len(points)))
        assert search.generation < 200
    assert search.stop().keys() & {"EqualFunValues", "TolXUp"}
    assert search.sigma > 0.5, "a plateau is left by widening the search"


@pytest.mark.parametrize(
    ("loss", "reasons"),
    [
        (sphere, {"TolFun", "TolX"}),
        (lambda x: (10.0 ** np.array([0, 18]) * x**2).sum(-1), {"ConditionCov", "TolX", "TolFun"}),
        (lambda x: -x.sum(-1), {"TolXUp"}),
    ],
)
def test_it_knows_when_to_stop(loss: Callable[[Any], Any], reasons: set[str]) -> None:
    search = CMAES([1.0, 1.0], 0.5, seed=2)
    while not (met := search.stop()):
        points = search.ask()
        search.tell(points, loss(points))
        assert search.generation < 3000
    assert set(met) & reasons


def test_noise_alone_stagnates() -> None:
    noise = np.random.default_rng(0)
    search = CMAES([1.0, 1.0], 0.5, seed=2)
    while not search.stop():
        search.tell(search.ask(), noise.random(search.population))
        assert search.generation < 3000


@pytest.mark.parametrize("regime", ["ipop", "bipop"])
def test_restarts_find_what_one_run_misses(regime: Any) -> None:
    def rastrigin(x: Any) -> Any:
        return (x**2 - 10 * np.cos(2 * math.pi * x) + 10).sum(-1)

    search = Restarts([3.0, -2.0, 4.0], 0.5, bounds=[[-5, 5]] * 3, seed=1, regime=regime)
    assert minimise(search, rastrigin, 1e-6, limit=60_000) is not None
    assert search.restarts > 0
    assert rastrigin(search.best) == search.best_loss


def test_a_run_that_cannot_overtake_is_not_finished() -> None:
    """Beside the optimum lies one that is worse by 5: its digits are not worth evaluations."""

    def two_basins(x: Any) -> Any:
        return np.minimum((x**2).sum(-1), 5 + ((x - 6) ** 2).sum(-1))

    search = Restarts([0.5] * 3, 0.3, bounds=[[-1, 9]] * 3, seed=0, regime="ipop")
    best: dict[int, float] = {}
    while search.restarts < 5:
        losses = two_basins(points := search.ask())
        search.tell(points, losses)
        best[search.restarts] = min(best.get(search.restarts, math.inf), losses.min())
    del best[5]  # it has only begun
    assert best[0] < 1e-11
    worse = [loss for loss in best.values() if loss >= 5]
    assert len(worse) >= 2
    assert 5 + 1e-5 < min(worse) < max(worse) < 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], 1.0), "mean"),
        (([1.0, math.nan], 1.0), "mean"),
        (([1.0], 0.0), "sigma"),
        (([1.0], 1.0, 1), "population"),
        (([1.0], 1.0, 0), "population"),
        (([1.0], 1.0, 4, [[1.0, 0.0]]), "bounds"),
        (([1.5], 1.0, 4, [[0.0, 1.0]]), "mean must lie within the bounds"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CMAES(*arguments)


def test_a_population_of_numpy_is_one_in_json_too() -> None:
    search = CMAES([1.0], 1.0, np.int64(6))
    assert CMAES.from_state(json.loads(json.dumps(search.state()))).population == 6
    with pytest.raises(TypeError):
        CMAES([1.0], 1.0, 2.5)


def test_bad_populations_are_named() -> None:
    search = CMAES([1.0, 2.0], 1.0, 4)
    with pytest.raises(ValueError, match="4 points of dimension 2"):
        search.tell(np.zeros((3, 2)), np.zeros(3))
