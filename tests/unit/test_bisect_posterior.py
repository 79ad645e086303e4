"""The posterior: every position with an eval that is never wrong, the likelihoods against their
textbook forms, and what it claims when the eval is noisy."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from adapterbot.bisect import (
    Contradiction,
    Exact,
    PairedBinary,
    PassFail,
    Posterior,
    Scores,
    by_change,
    expected_churn,
    uniform,
)
from adapterbot.bisect.pass_fail import Rates
from adapterbot.bisect.scores import _as_normal, _log_phi, two_means


def search_exactly(n: int, first_bad: int, skipped: frozenset[int] = frozenset()):
    posterior, probes = Posterior(n, Exact()), 0
    while posterior.best()[1] < 0.999 and (index := posterior.ask()) is not None:
        probes += 1
        assert probes <= n, "asks for ever"
        posterior.tell(index, None if index in skipped else index >= first_bad)
    return posterior, probes


def bound(n: int) -> int:
    return 2 + math.ceil(math.log2(max(n - 1, 1)))


def check_every_position(n: int) -> None:
    """All change points at once, by walking the tree of answers: each node is asked once."""
    stack: list[tuple[dict[int, bool], range, int]] = [({}, range(n + 1), 0)]
    while stack:
        told, possible, probes = stack.pop()
        posterior = Posterior(n, Exact())
        for at, bad in told.items():
            posterior.tell(at, bad)
        best, probability = posterior.best()
        if probability > 0.999:
            assert list(possible) == [best]
            assert probes <= bound(n)
            continue
        index = posterior.ask()
        assert index is not None
        for bad in (False, True):
            low, high = possible.start, possible.stop
            rest = range(low, min(high, index + 1)) if bad else range(max(low, index + 1), high)
            if rest:
                # Of several answers on one side the innermost says all.
                inner = {at: said for at, said in told.items() if said != bad or at in (0, n - 1)}
                stack.append(({**inner, index: bad}, rest, probes + 1))


def test_every_position_up_to_257_within_the_bound() -> None:
    for n in range(1, 258):
        # All of them are walked in tests/simulation.
        if n <= 48 or n % 8 <= 1 or n >= 255:
            check_every_position(n)


@given(st.integers(258, 4096), st.data())
@settings(max_examples=40)
def test_more_checkpoints_within_the_bound(n: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, n))
    posterior, probes = search_exactly(n, first_bad)
    assert posterior.best()[0] == first_bad
    assert probes <= bound(n)


@given(st.integers(1, 40), st.data())
def test_skips_widen_the_answer_but_never_make_it_wrong(n: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, n))
    skipped = frozenset(data.draw(st.sets(st.integers(0, n - 1))))
    posterior, _ = search_exactly(n, first_bad, skipped)
    candidates = posterior.credible(1.0)
    assert first_bad in candidates
    # Whatever else is possible differs from it by checkpoints that could not be evaluated.
    assert all(set(range(min(c, first_bad), max(c, first_bad))) <= skipped for c in candidates)


def test_an_eval_that_is_never_wrong_cannot_contradict_itself() -> None:
    posterior = Posterior(5, Exact())
    posterior.tell(1, True)
    posterior.tell(3, False)
    with pytest.raises(Contradiction):
        posterior.distribution()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "nothing to bisect"),
        ({"n": 3, "prior": [1, 1]}, "4 weights"),
        ({"n": 3, "prior": [1, 1, -1, 1]}, "not negative"),
        ({"n": 3, "prior": [0, 0, 0, 0]}, "not negative"),
    ],
)
def test_what_a_posterior_refuses(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Posterior(**arguments)


@pytest.mark.parametrize(
    ("model", "index", "outcome"),
    [
        (PassFail(), 0, 0.5),
        (PassFail(), 7, True),
        (Scores(), 0, float("nan")),
        (Scores(), 0, [0.5, -1e200]),
        (PairedBinary(), 0, [0.5]),
    ],
)
def test_what_is_no_outcome(model, index, outcome) -> None:
    with pytest.raises(ValueError, match=r"neither|outside|finite|made of"):
        Posterior(5, model).tell(index, outcome)


# ---------------------------------------------------------------- likelihoods


@pytest.mark.parametrize(
    ("good", "bad"), [((9, 1), (2, 3)), ((3, 0), (0, 4)), ((0, 0), (4, 0)), ((40, 11), (20, 31))]
)
def test_pass_fail_integrates_the_two_rates_over_a_wedge(good, bad) -> None:
    """Against the same double integral over even steps of the rates, in densities of scipy."""
    steps = (np.arange(2000) + 0.5) / 2000
    t0, t1 = steps[:, None], steps
    inside = t1 - t0 >= 0.12
    quiet = inside * stats.beta(1, 9).pdf(t0) * stats.beta(4, 1).pdf(t1)
    noisy = inside * stats.beta(1.5, 1.5).pdf(t0) * stats.beta(1.5, 1.5).pdf(t1)
    noisy = noisy / np.maximum(t1 - t0, 0.2) ** 5
    prior = 0.35 * quiet / quiet.sum() + 0.65 * noisy / noisy.sum()
    likelihood = stats.binom.pmf(good[1], sum(good), t0) / math.comb(sum(good), good[1])
    likelihood = likelihood * stats.binom.pmf(bad[1], sum(bad), t1) / math.comb(sum(bad), bad[1])
    posterior = prior * likelihood
    evidence = posterior.sum()
    log, rates = PassFail(nodes=400).weigh(np.array([good], float), np.array([bad], float))
    assert log[0] == pytest.approx(math.log(evidence), abs=0.05)
    assert isinstance(rates, Rates)
    bits = -steps * np.log2(steps) - (1 - steps) * np.log2(1 - steps)
    for axis, rate, told in ((1, rates.good, rates.of_good), (0, rates.bad, rates.of_bad)):
        alone = posterior.sum(axis=axis) / evidence
        mean = alone @ steps
        assert rate[0] == pytest.approx(mean, abs=0.01)
        coin = -mean * math.log2(mean) - (1 - mean) * math.log2(1 - mean)
        assert told[0] == pytest.approx(coin - alone @ bits, abs=0.005)


@pytest.mark.parametrize(("distance", "each"), [(1.0, 20), (0.3, 12)])
def test_scores_integrate_two_means_and_the_variance(distance, each) -> None:
    """Against sums over a grid of the good mean, a worse bad one and the deviation, under either
    prior."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, each), rng.normal(distance, 1, each)])
    unit = values.std(ddof=1)
    means = values.mean() + unit * np.linspace(-5, 5, 201)
    deviations = unit * np.geomspace(0.25, 6, 80)

    def density(seen: np.ndarray, deviation: float, pseudo: float) -> np.ndarray:
        prior = stats.norm.logpdf(means, values.mean(), deviation / pseudo**0.5)
        each_seen = stats.norm.logpdf(seen[:, None], means, deviation)
        return np.asarray(prior + each_seen.sum(axis=0))

    def evidence(change: int) -> float:
        total = []
        for deviation, (share, pseudo) in product(deviations, ((0.3, 0.05), (0.7, 2.0))):
            good, bad = (
                density(seen, deviation, pseudo) for seen in (values[:change], values[change:])
            )
            worse = np.exp(bad - bad.max())
            above = np.cumsum(worse[::-1])[::-1] - worse / 2
            total.append(
                np.log(share)
                + np.log(np.exp(good - good.max()) @ above)
                + (good.max() + bad.max())
                + stats.invgamma.logpdf(deviation**2, 0.5, scale=unit**2 / 8)
                + 2 * np.log(deviation)  # steps of the deviation are even in its logarithm
            )
        return float(np.logaddexp.reduce(total))

    changes = [1, each - 3, each - 1, each, each + 1, each + 3, 2 * each - 1]
    sums = np.array(
        [[[len(v), v.sum(), (v**2).sum()] for v in np.split(values, [c])] for c in changes]
    )
    log, _ = Scores().weigh(sums[:, 0], sums[:, 1])
    exactly = np.array([evidence(change) for change in changes])
    np.testing.assert_allclose(log - log[3], exactly - exactly[3], atol=0.05)


def test_two_numbers_are_passes_and_failures_until_there_is_a_third() -> None:
    """A bell curve through a few zeros and ones believes that they never err."""
    told = [(0, 1.0), (4, 0.25), (4, 1.0), (2, 0.25), (0, 1.0), (2, 0.25)]
    by_score, by_exit_code = Posterior(5, Scores(higher_is_bad=False)), Posterior(5)
    for index, score in told:
        by_score.tell(index, score)
        by_exit_code.tell(index, score < 0.5)
    np.testing.assert_allclose(by_score.distribution(), by_exit_code.distribution())
    assert by_score.choose() == by_exit_code.choose()
    by_score.tell(4, 0.3)
    assert np.abs(by_score.distribution() - by_exit_code.distribution()).max() > 0.01


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8), st.floats(-100, 100), st.floats(0.1, 50))
@example([0.1, 0.3, 2.0, 2.2], 1e9, 1.0)
@example([0.1, 0.3, 2.0, 2.2], 0.0, 1e-9)
@example([0.1, 0.3, 2.0, 2.2], 0.0, 1e60)
def test_scores_do_not_depend_on_their_scale_or_origin(values, origin, scale) -> None:
    def told(transform):
        posterior = Posterior(20, Scores(), prior=uniform(20, ends=(0.0, 0.0)))
        for i, value in enumerate(values):
            posterior.tell((7 * i) % 20, transform(value))
        return posterior.distribution()

    # Numbers that only rounding tells apart may be alike in another place.
    if np.ptp(values) > 0.1 and all(
        a == b or abs(a - b) > 1e-6 for a, b in combinations(values, 2)
    ):
        plain, moved = told(lambda v: v), told(lambda v: origin + scale * v)
        np.testing.assert_allclose(plain, moved, atol=1e-4)


@pytest.mark.parametrize(("share", "distance"), [(0.5, 1.0), (0.2, 2.5), (0.9, 0.3), (0.01, 4.0)])
def test_two_means_tell_what_numerical_integration_says(share, distance) -> None:
    x = np.linspace(-12, 16, 40_001)
    first, second = stats.norm.pdf(x), stats.norm.pdf(x - distance)
    mixed = (1 - share) * first + share * second
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.nansum(
            (1 - share) * first * np.log2(first / mixed) + share * second * np.log2(second / mixed)
        ) * (x[1] - x[0])
    found = two_means(np.array([share]), np.array([distance]))[0]
    assert found == pytest.approx(bits, abs=1e-3)


# ---------------------------------------------------------------- what is asked


def test_the_ends_come_first_and_assumed_ends_are_not_asked() -> None:
    posterior = Posterior(9)
    assert posterior.choose_batch(4) == [(8, 0), (0, 0)]
    assert posterior.ask() == 8
    posterior.tell(8, True)
    assert posterior.ask() == 0
    assert Posterior(9, Exact(), prior=uniform(9, ends=(0.0, 0.0))).ask() in {3, 4}


def test_an_end_that_one_kind_of_outcome_knows_is_not_asked_first_again() -> None:
    posterior = Posterior(9, [PassFail(), PassFail()])
    posterior.tell(8, True)
    assert posterior.choose_batch(2) == [(0, 0)]
    posterior.tell(0, False, kind=1)
    assert not {(0, 0), (8, 0)} & set(posterior.choose_batch(2))


def test_a_prior_by_change_is_asked_where_much_changed() -> None:
    sizes = [1.0] * 99
    sizes[70] = 1000.0
    prior = by_change(sizes)
    assert prior.sum() == pytest.approx(1.0)
    posterior = Posterior(100, Exact(), prior=prior)
    posterior.tell(99, True)
    posterior.tell(0, False)
    assert {posterior.ask()} <= {70, 71}


def test_cost_moves_the_probe() -> None:
    posterior = Posterior(101, Exact(), prior=uniform(101, ends=(0.0, 0.0)))
    costs = np.full(101, 10.0)
    costs[30] = 1.0
    assert posterior.ask() == pytest.approx(50, abs=1)
    assert posterior.ask(costs) == 30


def test_a_rate_that_hardly_any_checkpoint_can_tell_is_learned_in_time() -> None:
    """All but the oldest are bad: how often a good one fails is seen there alone. By what is told
    of the change alone such searches took 247 probes in the mean, and one of them 622."""
    probes, right = [], 0
    for seed in range(8):
        rng = np.random.default_rng([seed])
        posterior = Posterior(200, prior=uniform(200, ends=(0.0, 0.0)))
        posterior.tell(0, True)
        posterior.tell(199, True)
        probes.append(0)
        while posterior.best()[1] < 0.95 and probes[-1] < 1000:
            index = posterior.ask()
            assert index is not None
            posterior.tell(index, bool(rng.random() < (0.6 if index >= 1 else 0.1)))
            probes[-1] += 1
        right += posterior.best()[0] == 1
    assert right >= 7
    assert np.mean(probes) < 200


def test_what_repeats_itself_is_asked_once() -> None:
    posterior, asked = Posterior(6, room=1), []
    while (index := posterior.ask()) is not None:
        asked.append(index)
        posterior.tell(index, index >= 3)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("count", [4, 24])
def test_probes_at_once_of_an_exact_eval_part_it_evenly(count: int) -> None:
    """Of 24 no memory holds every history of outcomes."""
    posterior = Posterior(1001, Exact(), prior=uniform(1001, ends=(0.0, 0.0)))
    batch = sorted(index for index, _ in posterior.choose_batch(count))
    parts = np.diff([0, *batch, 1000])
    assert parts.max() <= 2 * parts.min() + 4
    assert len(set(batch)) == count


def test_4096_checkpoints_are_asked_in_well_under_a_second() -> None:
    posterior = Posterior(4096)
    rng = np.random.default_rng(0)
    for index in range(0, 4096, 40):
        posterior.tell(index, bool(rng.random() < (0.6 if index >= 2000 else 0.1)))
    assert posterior.ask() is not None
    assert posterior.distribution().shape == (4097,)


# ---------------------------------------------------------------- what it claims


def claims(rng, n, good, bad, room=np.inf, confidence=0.95):
    """(probes, right or covered, claimed) of one search with a noisy eval."""
    first_bad = int(rng.integers(1, n))
    posterior = Posterior(n, prior=uniform(n, ends=(0.0, 0.0)), room=room)
    posterior.tell(-1, rng.random(100) < good)
    posterior.tell(n, rng.random(100) < bad)
    probes = 0
    while posterior.best()[1] < confidence and (index := posterior.ask()) is not None:
        posterior.tell(index, bool(rng.random() < (bad if index >= first_bad else good)))
        probes += 1
    best, probability = posterior.best()
    return probes, best == first_bad, first_bad in posterior.credible(0.95), probability


def test_a_noisy_eval_is_right_as_often_as_claimed() -> None:
    rng = np.random.default_rng(5)
    found = np.array([claims(rng, 200, 0.1, 0.6) for _ in range(120)])
    assert found[:, 1].mean() >= 0.90  # 0.95 less three standard errors of 120 runs
    assert found[:, 0].mean() < 55


def test_a_greedy_eval_is_never_believed_more_than_it_says() -> None:
    """One answer for each checkpoint, 10 and 60 % of them wrong or right for good."""
    rng = np.random.default_rng(6)
    found = np.array([claims(rng, 60, 0.1, 0.6, room=1) for _ in range(120)])
    assert found[:, 2].mean() >= 0.90
    sure = found[:, 3] >= 0.95
    assert found[sure, 1].mean() >= 0.85 if sure.any() else True


@pytest.mark.parametrize("flips", [0.05, 0.15])
@pytest.mark.parametrize("broken", [0.0, 0.3, 0.65])
def test_churn_is_told_from_the_bad_end_however_much_broke(flips: float, broken: float) -> None:
    """Scores that lie on both ends; what broke cannot be seen to get better."""
    rng = np.random.default_rng(5)
    right = rng.random(20_000) >= broken
    good, bad = (
        np.ones_like(right) ^ (rng.random(right.size) < flips),
        right ^ (rng.random(right.size) < flips),
    )
    churn = expected_churn(good.astype(float) - bad)
    assert churn == pytest.approx(2 * flips * (1 - flips), rel=0.2)


def test_what_one_change_does_not_explain_is_named() -> None:
    """A run that recovers; and none where the model holds."""
    rng = np.random.default_rng(3)

    def told(worse: list[float]) -> Posterior:
        posterior = Posterior(len(worse), PairedBinary(), room=100)
        for index, share in enumerate(worse):
            better = rng.random(40) < 0.03
            posterior.tell(index, np.where(better, -1.0, rng.random(40) < share))
        return posterior

    posterior = told([0.03, 0.03, 0.03, 0.6, 0.6, 0.03, 0.6])
    assert posterior.best()[0] == 3
    assert posterior.misplaced(3) == [5]
    alarms = sum(bool(told([0.03] * 4 + [0.4] * 4).misplaced(4)) for _ in range(200))
    assert alarms <= 2
    commands = Posterior(3, PassFail())
    for index, bad in ((0, False), (1, True), (2, False)):
        commands.tell(index, np.full(30, bad))
    assert commands.misplaced(1) == [2]


def test_tails_are_as_heavy_as_they_are() -> None:
    z = np.linspace(-40.0, 8.0, 500)
    assert np.abs(_log_phi(z) - stats.norm.logcdf(z)).max() < 1e-6
    t = np.array([-100.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0])
    for degrees in (3, 30, 300):
        tail = _log_phi(_as_normal(t, degrees))
        assert np.abs(tail - stats.t.logcdf(t, degrees)).max() < 0.9, degrees


@pytest.mark.parametrize("rise", [0.0, 1.0, 4.0, 40.0])
def test_scores_that_stay_or_improve_end_with_none_broken(rise: float) -> None:
    """With tails as of an exponential, a great improvement was a break the more surely the more was
    asked."""
    n, found = 20, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        prior = uniform(n)
        prior[0] = 0.0
        posterior, asked = Posterior(n, Scores(higher_is_bad=False, least=0.5), prior=prior), 0
        while posterior.best()[1] < 0.95:
            index = posterior.ask()
            assert index is not None
            posterior.tell(index, float(rise * (index >= 12) + rng.normal()))
            asked += 1
            assert asked < 1000, "asks for ever"
        found.append(posterior.best()[0] == n)
    assert sum(found) >= 17


def test_a_search_is_stuck_where_nothing_between_can_tell() -> None:
    posterior = Posterior(9, PassFail())
    for index, bad in ((0, False), (8, True), (3, False), (6, True)):
        for _ in range(12):
            posterior.tell(index, bad)
    assert posterior.best()[1] < 0.95
    assert not posterior.stuck()
    posterior.tell(4, None)
    assert not posterior.stuck(), "5 may still tell"
    posterior.tell(5, None)
    assert posterior.stuck()


def test_one_rate_of_all_ends_a_search_unless_another_kind_may_tell() -> None:
    alone, beside = Posterior(6, PassFail()), Posterior(6, [PassFail(), PassFail()])
    for index in range(6):
        for posterior in (alone, beside):
            posterior.tell(index, np.arange(40) % 10 < 3)
    assert alone.constant() == pytest.approx(0.3, abs=0.02)
    assert beside.constant() is None
    assert beside.choose() == (5, 1)
