"""One step told from a slow rise: whole searches by the driver, and the evidence against a
reference."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy import integrate, stats

from adapterbot.bisect import (
    DEFAULT_LIMITS,
    Checkpoint,
    Entry,
    Kind,
    Limits,
    Model,
    Observation,
    PairedBinary,
    Posterior,
    Scores,
    Search,
    Setting,
    conclude,
    run,
    saved,
)
from adapterbot.bisect.drift import Rise
from adapterbot.records import BisectVerdict

RUNS = int(os.environ.get("BISECT_RUNS", "25"))
WORST, CHURN = 0.3, 0.03


def searched(seed: int, n: int, width: float, model: Model, limits: Limits = DEFAULT_LIMITS):
    """A search by chunks of eight, up to 200 samples a checkpoint, over `width` of the history."""
    rng = np.random.default_rng([31, seed])
    over = max(width * n, 1.0)
    start = rng.uniform(0.0, n - over) if over > 1 else float(rng.integers(0, n - 1))

    def draw(level: float, count: int) -> np.ndarray:
        if model is Model.HIGHER_IS_BAD:
            return rng.normal(2.0 * level, 1.0, count)
        worse = CHURN + (WORST - CHURN) * level
        return rng.choice([1.0, 0.0, -1.0], count, p=[worse, 1.0 - worse - CHURN, CHURN])

    checkpoints = [Checkpoint(path=f"run/{i}", label=f"{i}") for i in range(n)]
    setting = Setting(
        by="drift",
        kinds=(Kind(model=model, churn=2 * CHURN, room=200, size=8),),
        first_good=True,
        last_bad=True,
    )
    search = Search(checkpoints, setting)
    search.take(Entry(index=n - 1, outcome=tuple(draw(1.0, 200).tolist()), given=True))

    def probe(index: int, kind: int, seen: int) -> Observation:
        assert seen <= 192
        return Observation(draw(float(np.clip((index - start) / over, 0.0, 1.0)), 8))

    found = run(search, probe, limits=limits)
    again = conclude(search)
    # That a limit ended it is no part of what was seen.
    assert again == found.model_copy(update={"note": again.note})
    return found, checkpoints, (start, start + over)


@pytest.mark.parametrize("model", [Model.PAIRED_BINARY, Model.HIGHER_IS_BAD])
@pytest.mark.parametrize("n", [16, 64])
def test_one_break_is_not_called_a_drift(model: Model, n: int) -> None:
    found = [searched(seed, n, 0.0, model)[0] for seed in range(RUNS)]
    alarms = sum(one.drift is not None for one in found)
    assert alarms <= 0.05 * RUNS + 2 * (0.05 * 0.95 * RUNS) ** 0.5
    assert sum(one.verdict is BisectVerdict.BROKEN_AT for one in found) >= RUNS - alarms - 1


@pytest.mark.parametrize("model", [Model.PAIRED_BINARY, Model.HIGHER_IS_BAD])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_a_drift_is_named_and_where(model: Model, width: float) -> None:
    told, over = 0, []
    for seed in range(RUNS):
        found, checkpoints, (start, end) = searched(seed, 64, width, model)
        if found.drift is None:
            continue
        told += 1
        since, until = int(found.drift.since), int(found.drift.until)
        over.append(max(0.0, min(until, end) - max(since, start)) / max(end - start, until - since))
        assert found.verdict is BisectVerdict.BROKEN_WITHIN
        assert found.candidates[0] == f"{since + 1}"
        assert found.candidates[-1] == found.drift.until
        document = saved(found, checkpoints, confidence=0.95)
        assert document.drift
        assert (document.drift.since, document.drift.until) == (f"run/{since}", f"run/{until}")
        assert document.interval == (f"run/{since + 1}", f"run/{until}")
    assert told >= 0.8 * RUNS - 2 * (0.8 * 0.2 * RUNS) ** 0.5
    assert np.median(over) >= 0.5


def test_a_limit_holds_for_what_tells_a_drift_too() -> None:
    for seed in range(8):
        found, *_ = searched(seed, 64, 1.0, Model.PAIRED_BINARY, Limits(probes=11))
        assert len(found.probes) <= 12


def test_a_rise_takes_at_least_three_checkpoints() -> None:
    for n in (1, 2, 3, 9):
        posterior = Posterior(n, PairedBinary(2 * CHURN))
        posterior.tell(0, [0.0] * 30)
        posterior.tell(n - 1, [1.0] * 30)
        found = posterior.rise()
        assert (found is not None) == (n >= 3)
        assert found is None or 0 <= found.start < found.end < n


def test_a_rise_goes_straight_from_its_start_to_its_end() -> None:
    shares = Rise(start=8, end=16, odds=1.0).shares(24)
    assert shares.tolist() == [0.0] * 8 + [i / 8 for i in range(8)] + [1.0] * 8


def test_scores_along_a_shape_are_a_regression_integrated_over_its_means() -> None:
    """Against cubature of the same integral, the variance known."""
    rng = np.random.default_rng(4)
    levels = np.array([[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]])
    values = [rng.normal(level, 1.0, 60) for level in (0.0, 0.6, 1.0)]
    sums = np.array([[len(v), v.sum(), (v**2).sum()] for v in values])
    everything = np.concatenate(values)
    centre = everything.mean()

    def evidence(shape: np.ndarray) -> float:
        def density(bad: float, good: float) -> float:
            log = sum(
                stats.norm.logpdf(v, (1 - x) * good + x * bad).sum()
                for x, v in zip(shape, values, strict=True)
            )
            prior = sum(
                share * stats.norm.pdf([good, bad], centre, pseudo**-0.5).prod()
                for share, pseudo in ((0.3, 0.05), (0.7, 1.0))
            )
            return float(np.exp(log + 270.0) * prior)

        return float(integrate.dblquad(density, -0.7, 0.7, 0.3, 1.7, epsabs=0, epsrel=1e-2)[0])

    expected = np.log(evidence(levels[0])) - np.log(evidence(levels[1]))
    found = Scores().along(levels, sums)
    assert found[0] - found[1] == pytest.approx(expected, rel=0.15)


def test_shares_of_two_populations_are_put_where_they_are_likeliest() -> None:
    """Against a search over a grid of the same posterior density."""
    levels = np.array([[0.0, 0.3, 0.8, 1.0]])
    counts = np.array([[2.0, 95.0, 3.0], [3.0, 88.0, 9.0], [2.0, 77.0, 21.0], [1.0, 70.0, 29.0]])
    model = PairedBinary(0.06)
    (found,) = model.along(levels, counts)
    best = -np.inf
    good, bad = 30.0 * np.array([0.03, 0.94, 0.03]), 3.0 * np.array([0.03, 0.8, 0.2]) / 1.03
    for churn in np.linspace(0.02, 0.1, 25):
        first = np.array([churn / 2, 1.0 - churn, churn / 2])
        for better in np.linspace(0.002, 0.04, 25):
            for worse in np.linspace(0.2, 0.4, 31):
                second = np.array([better, 1.0 - better - worse, worse])
                mixed = (1.0 - levels[0])[:, None] * first + levels[0][:, None] * second
                prior = good @ np.log(first) + bad @ np.log(second)
                best = max(best, float((counts * np.log(mixed)).sum() + prior))
    assert found == pytest.approx(best, abs=0.02)
    assert found >= best - 1e-6
