"""bisect against a known change point: `BISECT_RUNS=2000 pytest tests/simulation/test_bisect.py`
makes as many searches as the bounds are stated for; fewer leave them their standard error."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from adapterbot.bisect import (
    Checkpoint,
    Kind,
    Limits,
    Model,
    Observation,
    Posterior,
    Search,
    Setting,
    run,
    uniform,
)
from adapterbot.probing.chunks import Series
from adapterbot.records import BisectVerdict, Direction, SampleScore, ScoreKind, TaskResult
from bench.bisect import paired, pass_fail, scores, searches
from tests.unit.test_bisect_posterior import check_every_position

RUNS = int(os.environ.get("BISECT_RUNS", "60"))


def check(found, most: float, least_right: float = 0.94, runs: int = RUNS) -> None:
    assert found.asked <= most + 3 * found.error
    assert found.right >= least_right - 3 * (0.05 * 0.95 / runs) ** 0.5


def searched(posterior: Posterior, draw: Callable[[int], bool | float]) -> tuple[int, int]:
    """A search to its end: how often it asked, and the likeliest change point."""
    asked = 0
    while posterior.best()[1] < 0.95 and (index := posterior.ask()) is not None:
        posterior.tell(index, draw(index))
        asked += 1
    return asked, posterior.best()[0]


def test_every_position_up_to_257() -> None:
    for n in range(1, 258):
        check_every_position(n)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad", "gate", "most", "share"),
    [
        (0.1, 0.6, 100, 58, 1),
        (0.1, 0.6, 0, 100, 1),
        (0.05, 0.95, 0, 24, 1),
        (0.3, 0.5, 100, 510, 4),
        (0.3, 0.5, 0, 745, 4),
    ],
)
def test_noisy_commands_are_right_as_often_as_claimed(good, bad, gate, most, share) -> None:
    runs = max(RUNS // share, 10) if RUNS < 1000 else RUNS
    check(searches(lambda rng: pass_fail(rng, good, bad, gate=gate), runs), most, runs=runs)


@pytest.mark.parametrize(("distance", "most"), [(1, 70), (2, 24), (4, 12)])
def test_scores_are_right_as_often_as_claimed(distance, most) -> None:
    check(searches(lambda rng: scores(rng, distance), RUNS), most)


@pytest.mark.parametrize(("distance", "most"), [(1, 150), (2, 48), (4, 20)])
def test_scores_of_which_nothing_was_measured_before(distance, most) -> None:
    """The sides' means are as unknown as the change: nothing stops at a lucky streak, and nothing
    is stuck because the first two scores were alike."""
    runs = max(RUNS, 150)
    found = searches(lambda rng: scores(rng, distance, gate=0), runs)
    check(found, most, runs=runs)
    assert found.error < most / 10


@pytest.mark.parametrize(
    ("distance", "most", "right"),
    [(-2.0, 24, 0.98), (0.0, 60, 0.94), (0.5, 240, 0.6), (0.75, 140, 0.88), (1.0, 80, 0.93)],
)
def test_scores_of_a_command_find_what_they_look_for(distance, most, right) -> None:
    """Nobody says that something broke: it may be that nothing did, or that the score improved."""

    def one(rng: np.random.Generator) -> tuple[float, bool]:
        n = 20
        change = int(rng.integers(1, n))
        posterior = Setting(
            by="a command", kinds=(Kind(model=Model.HIGHER_IS_BAD),), first_good=True
        ).posterior(n)
        asked, found = searched(
            posterior, lambda index: rng.normal(distance if index >= change else 0.0)
        )
        return asked, found == (change if distance > 0 else n)

    check(searches(one, RUNS), most, right)


@pytest.mark.parametrize("n", [2, 3, 20])
@pytest.mark.parametrize("outcomes", ["scores", "zeros and ones", "exit codes"])
def test_where_nothing_broke_few_searches_name_a_checkpoint(outcomes, n) -> None:
    """However few checkpoints there are: of two, a lucky first score is no proof."""
    runs = max(RUNS // 2, 30)
    exits = outcomes == "exit codes"

    def one(rng: np.random.Generator) -> tuple[float, bool]:
        def told(_: int) -> bool | float:
            fails, score = bool(rng.random() < 0.1), float(rng.normal())
            return {"scores": score, "exit codes": fails}.get(outcomes, float(not fails))

        posterior = Setting(
            by="a command",
            kinds=(Kind(model=Model.PASS_FAIL if exits else Model.LOWER_IS_BAD),),
            first_good=not exits,
        ).posterior(n)
        asked, found = searched(posterior, told)
        return asked, found == n

    check(searches(one, runs), 60, 0.94, runs=runs)


@pytest.mark.parametrize(
    ("rate", "verdict", "most"),
    [(0.3, BisectVerdict.ALL_OK, 400), (0.6, BisectVerdict.BROKEN_WITHIN, 400)],
)
def test_a_command_that_fails_as_often_everywhere_is_not_asked_for_ever(
    rate, verdict, most
) -> None:
    """Whether such a rate is a good one's or a bad one's no run tells: the search went on without
    end, and after thousands of runs called checkpoints good that fail in six runs of ten."""
    checkpoints = [Checkpoint(path=name, label=name) for name in ("a", "b", "c")]
    setting = Setting(by="a command", kinds=(Kind(model=Model.PASS_FAIL),))
    limits, found = Limits(probes=2000), []
    for seed in range(12):
        rng = np.random.default_rng(seed)

        def probe(*_: int, rng: np.random.Generator = rng) -> Observation:
            return Observation(bool(rng.random() < rate))

        found.append(run(Search(checkpoints, setting), probe, limits=limits))
    assert sum(one.verdict == verdict for one in found) >= 9
    assert np.mean([len(one.probes) for one in found]) < most
    told = next(one for one in found if one.verdict == verdict)
    assert "every checkpoint fails in about" in told.note


def test_a_score_of_zero_or_one_is_no_bell_curve() -> None:
    def one(rng: np.random.Generator) -> tuple[float, bool]:
        n = 20
        change = int(rng.integers(1, n))
        posterior = Setting(
            by="a command", kinds=(Kind(model=Model.LOWER_IS_BAD),), first_good=True
        ).posterior(n)
        asked, found = searched(
            posterior, lambda index: float(rng.random() < (0.4 if index >= change else 0.9))
        )
        return asked, found == change

    check(searches(one, RUNS), 65, 0.94)


@pytest.mark.parametrize("distance", [1.0, 4.0])
def test_one_score_for_each_checkpoint_is_covered(distance) -> None:
    def one(rng: np.random.Generator) -> tuple[float, bool]:
        n = 30
        # As likely as it is taken to be.
        first_bad = n if rng.random() < 0.55 else int(rng.integers(1, n))
        posterior = Setting(
            by="", kinds=(Kind(model=Model.HIGHER_IS_BAD, room=1),), first_good=True
        ).posterior(n)
        searched(posterior, lambda index: rng.normal(distance if index >= first_bad else 0.0))
        return 0.0, first_bad in posterior.credible(0.95)

    runs = max(RUNS, 300)
    check(searches(one, runs), 1, 0.95, runs=runs)


def test_paired_chunks_are_right_as_often_as_claimed() -> None:
    check(searches(paired, RUNS), 650, 0.97)


@pytest.mark.parametrize(
    ("good", "bad"),
    [((0.01, 0.01), (0.3, 0.01)), ((0.0, 0.0), (0.6, 0.0)), ((0.13, 0.13), (0.5, 0.08))],
)
def test_other_chunks_are_right_as_often_as_claimed(good, bad) -> None:
    check(searches(lambda rng: paired(rng, good, bad, n=64, suite=200), RUNS), 10_000, 0.93)


def test_greedy_outcomes_are_covered() -> None:
    """One answer for each checkpoint, wrong for good in 10 and 40 %: nothing to ask twice."""

    def one(rng: np.random.Generator) -> tuple[float, bool]:
        n = 200
        first_bad = int(rng.integers(1, n))
        posterior = Posterior(n, prior=uniform(n, ends=(0.0, 0.0)), room=1)
        searched(posterior, lambda index: bool(rng.random() < (0.6 if index >= first_bad else 0.1)))
        return 0.0, first_bad in posterior.credible(0.95)

    check(searches(one, RUNS), 1, 0.95)


@pytest.mark.parametrize(("documents", "rows"), [(40, 5), (20, 10)])
def test_rows_of_one_document_are_one_piece_of_evidence(documents, rows) -> None:
    """Attack: rows of one document, or of one question asked several times, are wrong together.
    Taken as so many pieces of evidence, they had a search claim 95 % and be right in 25."""
    names = [f"{place:03}" for place in range(documents * rows)]

    def result(scores: dict[str, float]) -> TaskResult:
        return TaskResult(
            task="t",
            scorer="exact",
            direction=Direction.HIGHER,
            kind=ScoreKind.BINARY,
            samples=tuple(
                SampleScore(sample_id=name, score=score, cluster=f"d{int(name) // rows}")
                for name, score in scores.items()
            ),
        )

    series = Series.of("t", SimpleNamespace(name="t"), None, result(dict.fromkeys(names, 1.0)))

    def one(rng: np.random.Generator) -> tuple[float, bool]:
        n = 30
        first_bad = int(rng.integers(0, n))

        def asked(index: int, units: list[int]) -> np.ndarray:
            wrong = fails[index] | (index >= first_bad) * broken
            ids = [name for unit in units for name in series.units[unit]]
            return series.harms(result({i: 1.0 - wrong[int(i) // rows] for i in ids}))

        fails, broken = rng.random((n, documents)) < 0.1, rng.random(documents) < 0.3
        order = [rng.permutation(documents) for _ in range(n)]
        ill = {name: 1.0 - (fails[n - 1] | broken)[int(name) // rows] for name in names}
        kind = series.kind(result(ill))
        posterior = Setting(by="t", kinds=(kind,), last_bad=True).posterior(n)
        posterior.tell(n - 1, series.harms(result(ill)))
        while posterior.best()[1] < 0.95:
            index = posterior.ask(size=kind.size)
            if index is None:
                break
            seen = int(posterior.asked(index))
            posterior.tell(index, asked(index, order[index][seen : seen + kind.size].tolist()))
        return 0.0, first_bad in posterior.credible(0.95)

    check(searches(one, RUNS), 1, 0.95)
