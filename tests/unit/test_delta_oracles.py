"""Our numpy against scipy, statsmodels, brute force and published examples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats import multitest
from statsmodels.stats.contingency_tables import mcnemar

from adapterbot import delta
from adapterbot.paired import Metric, pair_corpus
from adapterbot.records import Direction, MetricDelta, Unit
from adapterbot.stats.corpus import corpus_difference
from adapterbot.stats.distributions import binomial_pmf, normal_quantile, student_quantile
from adapterbot.stats.means import mean_difference
from adapterbot.stats.multiplicity import benjamini_hochberg, holm
from adapterbot.stats.proportions import PairedProportions, mid_p
from adapterbot.stats.resampling import (
    resampled_moments,
    resampled_totals,
    signed_sums,
    tail_shares,
)

counts = st.integers(0, 60)


# ---------------------------------------------------------------- distributions


@pytest.mark.parametrize(
    ("df", "accuracy"), [(1, 1e-9), (2, 1e-9), (3, 2e-4), (4, 2e-5), (9, 1e-6), (99, 1e-7)]
)
@pytest.mark.parametrize("p", [0.0005, 0.005, 0.025, 0.2, 0.5, 0.8, 0.95, 0.9995])
def test_student_quantiles(df: int, accuracy: float, p: float) -> None:
    assert student_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=accuracy, abs=1e-12)


def test_student_quantiles_become_normal() -> None:
    assert student_quantile(0.975, 10**7) == pytest.approx(normal_quantile(0.975), rel=1e-6)


@settings(max_examples=60)
@given(st.integers(1, 300), st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0]))
def test_binomial_probabilities(n: int, p: float) -> None:
    k = np.arange(n + 1)
    np.testing.assert_allclose(binomial_pmf(k, n, p), stats.binom.pmf(k, n, p), atol=1e-12)


# ---------------------------------------------------------------- 0/1 scores


@settings(max_examples=60)
@given(counts, counts)
def test_mid_p_is_mcnemar_without_half_of_what_was_seen(worse: int, better: int) -> None:
    if worse + better == 0:
        assert mid_p(worse, better) == 1
        return
    exact = mcnemar([[0, worse], [better, 0]], exact=True).pvalue
    seen = stats.binom.pmf(worse, worse + better, 0.5)
    two_sided = 2 * min(mid_p(worse, better), mid_p(better, worse))
    # The exact two-sided p counts the observed table in both tails.
    assert two_sided == pytest.approx(1.0 if worse == better else exact - seen, abs=1e-12)
    one_sided = stats.binom.sf(worse, worse + better, 0.5) + seen / 2
    assert mid_p(worse, better) == pytest.approx(one_sided, rel=1e-9)


def test_a_published_example() -> None:
    """Airway hyper-responsiveness before and after transplantation, 21 children, b = 7, c = 1.

    Fagerland, Lydersen and Laake (2014): mid-p 0.039; Tango's interval 0.026 to 0.517.
    """
    found = PairedProportions(21, 7, 1)
    assert 2 * found.p_worse == pytest.approx(0.0391, abs=5e-5)
    assert found.bounds(0.025) == pytest.approx((0.026, 0.517), abs=5e-4)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 200))
def test_the_score_bound_is_where_the_score_statistic_is_z(b: int, c: int, same: int) -> None:
    """Tango's statistic with the restricted maximum-likelihood estimate found numerically."""
    n = b + c + same
    found = PairedProportions(n, b, c)
    for alpha, bound, z in (
        (0.05, found.bounds(0.05)[1], -1.6448536),
        (0.005, found.bounds(0.005)[0], 2.5758293),
    ):
        if abs(bound) > 1 - 1e-6:
            continue

        def unlikely(q: float, bound: float = bound) -> float:
            cells = np.array([q + bound, q, 1 - 2 * q - bound])
            seen = np.array([b, c, same])
            return -float(np.sum(seen * np.log(np.maximum(cells, 1e-300))))

        low, high = max(0.0, -bound), (1 - bound) / 2
        q = optimize.minimize_scalar(
            unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        statistic = (b - c - n * bound) / math.sqrt(n * (2 * q + bound * (1 - bound)))
        assert statistic == pytest.approx(z, rel=2e-3), alpha


@pytest.mark.parametrize(("n", "b", "c"), [(50, 0, 0), (50, 4, 2), (200, 20, 6), (40, 20, 15)])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_the_detectable_harm_is_found_four_times_in_five(
    n: int, b: int, c: int, alpha: float
) -> None:
    found = PairedProportions(n, b, c).detectable(alpha)
    assert found is not None
    discordant = max((b + c) / n, found)
    rng = np.random.default_rng(5)
    cells = [(discordant + found) / 2, (discordant - found) / 2, 1 - discordant]
    drawn = rng.multinomial(n, cells, size=20_000)
    seen, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    hits = sum(k for (x, y), k in zip(seen, times, strict=True) if mid_p(int(x), int(y)) <= alpha)
    assert hits / 20_000 == pytest.approx(0.8, abs=0.012)


def test_many_discordant_pairs_are_approximated_closely() -> None:
    exact = PairedProportions(2000, 30, 30).detectable(0.05)
    normal = PairedProportions(2000, 31, 30).detectable(0.05)
    assert exact is not None
    assert normal == pytest.approx(exact, rel=0.03)


def test_two_pairs_detect_nothing() -> None:
    assert PairedProportions(2, 1, 0).detectable(0.05) is None


# ---------------------------------------------------------------- sign flips


def brute_force(harm: list[float]) -> tuple[float, float]:
    sums = [
        math.fsum(s * h for s, h in zip(signs, harm, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(harm))
    ]
    seen = math.fsum(harm)
    worse = sum(total >= seen - 1e-9 for total in sums) / len(sums)
    return worse, sum(total <= seen + 1e-9 for total in sums) / len(sums)


@settings(max_examples=40)
@given(st.lists(st.integers(-9, 9).map(lambda v: v / 3), min_size=2, max_size=9))
def test_sign_flips_of_few_samples_are_counted(harm: list[float]) -> None:
    if not any(harm):
        return
    found = mean_difference(np.array(harm), None, resamples=50)
    assert found is not None
    assert (found.p_worse, found.p_better) == pytest.approx(brute_force(harm), abs=1e-12)


@settings(max_examples=15)
@given(st.lists(st.integers(-9, 9).map(float), min_size=24, max_size=24))
def test_clusters_are_flipped_whole(harm: list[float]) -> None:
    sums = [math.fsum(harm[i : i + 3]) for i in range(0, 24, 3)]
    if not any(harm):
        return
    found = mean_difference(np.array(harm), np.arange(24) // 3, resamples=50)
    assert found is not None
    assert (found.p_worse, found.p_better) == pytest.approx(brute_force(sums), abs=1e-12)


@pytest.mark.parametrize("n", [12, 40, 200])
def test_sign_flips_against_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    before = rng.normal(size=n)
    after = before + rng.standard_t(3, size=n) + 1.5 / math.sqrt(n)
    found = mean_difference(after - before, None, resamples=20_000)
    assert found is not None
    for side, ours in (("greater", found.p_worse), ("less", found.p_better)):
        theirs = stats.permutation_test(
            (after, before),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf if n == 12 else 20_000,
            alternative=side,
            rng=np.random.default_rng(1),
        ).pvalue
        assert ours == pytest.approx(theirs, abs=1e-12 if n == 12 else 0.012)


def test_drawn_signs_are_fair_and_independent() -> None:
    sums, exact = signed_sums(np.eye(20), 40_000, np.random.default_rng(0))
    assert not exact
    assert set(np.unique(sums)) == {-1.0, 1.0}
    correlation = sums.T @ sums / len(sums) - np.eye(20)
    assert np.abs(sums.mean(axis=0)).max() < 0.02
    assert np.abs(correlation).max() < 0.025


def test_a_drawn_p_is_never_zero() -> None:
    null = np.linspace(-1, 1, 999)
    assert tail_shares(null, 5.0, exact=False) == (1 / 1999, 1.0)
    assert tail_shares(null, 5.0, exact=True) == (0.0, 1.0)


# ---------------------------------------------------------------- intervals


def interval_of(found: MetricDelta) -> tuple[float, float]:
    assert found.interval is not None
    return found.interval.low, found.interval.high


def bootstrap_t(harm: np.ndarray, alpha: float, resamples: int, rng) -> tuple[float, float]:
    """The textbook loop."""
    n, mean, error = len(harm), harm.mean(), harm.std(ddof=1) / math.sqrt(len(harm))
    pivots = []
    for _ in range(resamples):
        drawn = rng.choice(harm, n)
        pivots.append((drawn.mean() - mean) / (drawn.std(ddof=1) / math.sqrt(n)))
    low, high = np.quantile(pivots, [alpha, 1 - alpha])
    return mean - high * error, mean - low * error


def test_the_interval_is_the_wider_of_bootstrap_t_and_student() -> None:
    rng = np.random.default_rng(4)
    harm = rng.exponential(size=60) - 0.7
    low, high = interval_of(
        delta.compare(np.zeros(60), harm, direction="lower", margin=1, unit="number",
                      resamples=20_000)
    )  # fmt: skip
    expected = bootstrap_t(harm, 0.025, 20_000, rng)
    student = stats.t.interval(0.95, 59, harm.mean(), stats.sem(harm))
    width = student[1] - student[0]
    assert low == pytest.approx(min(expected[0], student[0]), abs=0.02 * width)
    assert high == pytest.approx(max(expected[1], student[1]), abs=0.04 * width)


def test_without_sampling_noise_clusters_of_equal_size_are_their_means() -> None:
    rng = np.random.default_rng(5)
    totals = rng.normal(size=(40, 4)) + rng.normal(size=(40, 1))
    clustered = mean_difference(totals.ravel(), np.repeat(np.arange(40), 4), resamples=200)
    means = mean_difference(totals.mean(axis=1), None, resamples=200)
    assert clustered is not None
    assert means is not None
    assert clustered.harm == pytest.approx(means.harm)
    assert clustered.error == pytest.approx(means.error)
    assert clustered.p_worse == pytest.approx(means.p_worse, abs=0.1)


def test_unequal_clusters_have_the_jackknife_error() -> None:
    """SE² = (G−1)/G · Σ(h̄ without g − h̄)², and as many degrees of freedom as equal clusters of that
    effective number have: (ΣN)² / ΣN² − 1."""
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 7, size=30)
    labels = np.repeat(np.arange(30), sizes)
    harm = rng.normal(size=len(labels)) + rng.normal(size=30)[labels] + 0.3
    found = mean_difference(harm, labels, resamples=50)
    without = np.array([harm[labels != g].mean() for g in range(30)])
    assert found is not None
    assert found.harm == pytest.approx(harm.mean())
    assert found.error == pytest.approx(math.sqrt(29 / 30 * ((without - harm.mean()) ** 2).sum()))
    assert found.df == round(sizes.sum() ** 2 / (sizes**2).sum()) - 1 < 29


def mean_of(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def test_bca_against_scipy() -> None:
    rng = np.random.default_rng(7)
    harm = rng.exponential(size=80)
    stacked = [np.column_stack([side, np.ones(80)]) for side in (np.zeros(80), harm)]
    found = corpus_difference(
        stacked[0], stacked[1], mean_of, worse_when_higher=True, clusters=None, resamples=20_000
    )
    theirs = stats.bootstrap(
        (harm,), np.mean, n_resamples=20_000, rng=np.random.default_rng(8)
    ).confidence_interval
    assert found is not None
    assert found.acceleration == pytest.approx(stats.skew(harm) / (6 * math.sqrt(80)), rel=1e-6)
    width = theirs.high - theirs.low
    ours = [found._percentile(z) for z in (-1.959964, 1.959964)]
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.03 * width)
    assert found.error == pytest.approx(stats.sem(harm))


def test_swapping_whole_samples_against_scipy() -> None:
    """Perplexity, a ratio in the exponent: the permutation is of samples, not of scores."""
    rng = np.random.default_rng(9)
    tokens = rng.integers(5, 50, size=12).astype(float)
    sides = [np.column_stack([tokens * rng.gamma(20, 0.1, size=12), tokens]) for _ in range(2)]

    def perplexity(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))

    metric = Metric("perplexity", Direction.LOWER, Unit.NUMBER)
    found = pair_corpus(metric, sides[0], sides[1], perplexity, resamples=100).delta
    rises = []
    for swaps in itertools.product((False, True), repeat=12):
        swapped = np.array(swaps)[:, None]
        before, after = (np.where(swapped, sides[1 - i], sides[i]).sum(axis=0) for i in range(2))
        rises.append(float(perplexity(after) - perplexity(before)))
    assert found.change == pytest.approx(rises[0])
    assert found.p_worse == pytest.approx(np.mean(np.array(rises) >= rises[0] - 1e-9))
    assert found.p_better == pytest.approx(np.mean(np.array(rises) <= rises[0] + 1e-9))


# ---------------------------------------------------------------- many metrics


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_and_benjamini_hochberg_against_statsmodels(p_values: list[float]) -> None:
    reject, adjusted, _, _ = multitest.multipletests(p_values, 0.05, method="holm")
    steps = holm(p_values, 0.05)
    np.testing.assert_allclose([step.adjusted for step in steps], adjusted, atol=1e-12)
    q_values = multitest.multipletests(p_values, method="fdr_bh")[1]
    np.testing.assert_allclose(benjamini_hochberg(p_values), q_values, atol=1e-12)
    for p, step, rejected in zip(p_values, steps, reject, strict=True):
        assert step.level <= 0.05
        if abs(step.adjusted - 0.05) > 1e-9:
            assert (p <= step.level) == rejected


def test_no_order_of_metrics_shows_where_p_values_are_equal() -> None:
    """Nine losses and no gain have one p-value, among however many samples; the bounds differ."""
    p_values = [0.001, 0.01, 0.01, 0.01, 0.4]
    steps = holm(p_values, 0.05)
    assert holm(p_values[::-1], 0.05)[::-1] == steps
    assert [step.level for step in steps] == pytest.approx([0.01, 0.0125, 0.0125, 0.0125, 0.05])


def test_nothing_to_correct() -> None:
    assert holm([], 0.05) == []
    assert benjamini_hochberg([]) == []


def test_resamples_draw_from_all_units_however_many() -> None:
    """More than two bytes can number: the last unit is drawn as often as any other."""
    units = 2**16 + 2**14
    late = (np.arange(units) >= 2**16).astype(np.float64)
    sums, squares = resampled_moments(late, 20, np.random.default_rng(0))
    totals = resampled_totals(late[:, None], 20, np.random.default_rng(0))
    np.testing.assert_array_equal(sums, squares)
    np.testing.assert_array_equal(sums, totals[:, 0])
    error = math.sqrt(units * 0.2 * 0.8)
    assert np.abs(sums - 2**14).max() < 5 * error
    assert sums.std() == pytest.approx(error, rel=0.6)
