"""Outcomes that are numbers, or better, the same and worse: what their means say of either side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import lgamma
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bisect.evidence import Floats, Prediction, entropy, mixed_shares, split
from adapterbot.bisect.pass_fail import PassFail

LARGEST = 1e100
"""Of outcomes: their squares are summed."""

# The variance of scores that are all alike.
_SMALLEST = 1e-200

# Of numbers that are not alike, as many as a bell curve may have.
_MANY = 3

# Steps of the table of `two_means` along either side, and of the integral behind an entry.
_STEPS, _NODES = 64, 129
# Of a number's bits about the mean of its side, those that count as if they were about the change:
# two sides whose first numbers happen to be alike would otherwise never be told apart.
_MEAN_BITS = 2.0
# How far apart the sides of `Scores` lie beforehand, far or about a deviation: how likely that is,
# and the pseudo-observations of either mean.
_PRIORS = ((0.3, 0.05), (0.7, 2.0))
# Pseudo-observations of the two priors of `PairedBinary`. The good side's counts for more: nothing
# has been measured there, while the bad end usually has.
_GOOD, _BAD = 30.0, 3.0
# Share of samples expected to have got worse on the bad side.
_HARM = 0.2


# Of log erfc(x) + x² − log t in t = 1 / (1 + x/2), the highest power first.
_ERFCC = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807),
    *(-0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223),
)


@cache
def _table() -> Floats:
    """Bits that a draw tells, at arcsin √share in 0…π/4 and distance / (2 + distance) in 0…1.

    Shapes: (steps + 1, steps + 1); the last column is the limit, in which a draw tells all.
    """
    p = np.sin(np.linspace(0.0, np.pi / 4, _STEPS + 1)[1:]) ** 2
    u = np.linspace(0.0, 1.0, _STEPS + 1)[1:-1]
    d = (2.0 * u / (1.0 - u))[:, None]
    x = np.linspace(-7.0, 7.0, _NODES)
    weights = np.exp(-0.5 * x * x)
    weights /= weights.sum()
    table = np.zeros((_STEPS + 1, _STEPS + 1))
    for row, share in enumerate(p, 1):
        prior = np.log(share / (1.0 - share))
        # Log odds of the second, for draws from the first and from the second.
        left = (1.0 - share) * _surprise(prior + d * x - 0.5 * d * d) @ weights
        left += share * _surprise(prior + d * x + 0.5 * d * d) @ weights
        table[row, 1:-1] = entropy(np.array([share]))[0] - left
    table[1:, -1] = entropy(p)
    return np.maximum(table, 0.0)


def _log_phi(z: Floats) -> Floats:
    """Log of the normal distribution function, within 2·10⁻⁷ however far out (Press et al.,
    "Numerical Recipes in C", 1992, §6.2, `erfcc`)."""
    size = np.abs(z) * np.sqrt(0.5)
    t = 1.0 / (1.0 + 0.5 * size)
    tail = np.log(0.5 * t) - size**2 + np.polyval(_ERFCC, t)
    return np.asarray(np.where(z < 0.0, tail, np.log1p(-np.exp(tail))))


def _as_normal(t: Floats, degrees: float) -> Floats:
    """The normal deviate with the tail of Student's t (Wallace, "Bounds on normal approximations to
    Student's and the chi-square distributions", 1959): a tail as light as the normal one's, or as
    heavy as an exponential's, would not make up for what a step the wrong way explains."""
    size = np.sqrt(degrees * np.log1p(t**2 / degrees)) * (8.0 * degrees + 1.0)
    return np.asarray(np.sign(t) * size / (8.0 * degrees + 3.0))


def _surprise(odds: Floats) -> Floats:
    """Bits of a coin by the log of its odds."""
    size = np.minimum(np.abs(odds), 700.0)
    small = np.exp(-size)
    return np.asarray((np.log1p(small) + size * small / (1.0 + small)) / np.log(2.0))


def two_means(share: Floats, distance: Floats) -> Floats:
    """Bits that one draw tells of which of two unit normals it came from, within 1 in 1000.

    Looked up between the entries of a table: whoever asks which of a thousand indices tells most
    integrates nothing.

    Args:
        share: chance of the second, by index.
        distance: between the means, in standard deviations, by index.
    """
    table = _table()
    p = np.clip(np.minimum(share, 1.0 - share), 0.0, 0.5)
    size = np.abs(distance)
    row = np.arcsin(np.sqrt(p)) * (4.0 / np.pi * _STEPS)
    column = size / (2.0 + size) * _STEPS
    i = np.minimum(row.astype(np.intp), _STEPS - 1)
    j = np.minimum(column.astype(np.intp), _STEPS - 1)
    down, right = row - i, column - j
    above = (1.0 - right) * table[i, j] + right * table[i, j + 1]
    below = (1.0 - right) * table[i + 1, j] + right * table[i + 1, j + 1]
    return np.asarray((1.0 - down) * above + down * below)


@dataclass(frozen=True)
class Means:
    """Mean and variance of one outcome on either side, and the bits that it tells of either mean,
    (K,) each."""

    good: Floats
    bad: Floats
    good_variance: Floats
    bad_variance: Floats
    of_good: Floats
    of_bad: Floats

    def information(self, weights: Floats, at: NDArray[np.intp], size: float) -> Floats:
        """As of two normals with the means and variances that are expected at each index, and a
        part of what the outcome tells of their means."""
        none = np.zeros_like(weights)
        share = np.clip(np.cumsum(weights[:-1]), 1e-12, 1.0 - 1e-12)
        bad = split(weights, none, self.bad[at]) / share
        good = split(weights, self.good[at], none) / (1.0 - share)
        deviation = split(weights, np.sqrt(self.good_variance)[at], np.sqrt(self.bad_variance)[at])
        means = split(weights, self.of_good[at], self.of_bad[at])
        return two_means(share, (bad - good) / deviation * np.sqrt(size)) + _MEAN_BITS * means

    def looks_bad(self, size: float) -> tuple[Floats, Floats]:
        deviation = 0.5 * (np.sqrt(self.good_variance) + np.sqrt(self.bad_variance))
        distance = np.abs(self.bad - self.good) / deviation * np.sqrt(size)
        bad = 1.0 / (1.0 + np.exp(-0.85 * np.clip(distance, 0, 50)))  # Φ(d/2), near enough
        return 1.0 - bad, bad


class Scores:
    """Outcomes are numbers, normal around a mean of each side with one unknown variance.

    Normal and inverse gamma priors, integrated in closed form (Murphy, "Conjugate Bayesian
    analysis of the Gaussian distribution", 2007, §6): the variance with one pseudo-observation, a
    quarter of the variance of everything seen, and the means with some around the mean of
    everything seen. Few of them, and the sides lie far apart; two, and they lie about a deviation
    apart. Beforehand it is one or the other: a prior that allows any distance believes a lucky
    streak of a noisy eval, in which the sides look far apart, and is sure too early. Scale and
    origin of the scores do not matter.

    Numbers of which there are only two are no bell curve, whose deviation a few alike ones would
    make small: as long as no third was seen, the worse one is a failure, as of `PassFail`.

    Args:
        higher_is_bad: the side on which the bad mean must lie.
        least: by how many standard deviations at least. Without one, "nothing broke" is hardly
            ever told from "a break too small to see", however much is asked.
    """

    width = 3

    def __init__(self, *, higher_is_bad: bool = True, least: float = 0.0) -> None:
        self._sign = 1.0 if higher_is_bad else -1.0
        self._least = least
        # The first three numbers that are not alike.
        self._values: list[float] = []
        self._two = PassFail()

    def statistics(self, outcome: Any) -> Floats:
        values = np.atleast_1d(np.asarray(outcome, dtype=np.float64))
        if values.ndim != 1 or not (np.abs(values) <= LARGEST).all():
            raise ValueError(f"{outcome!r} is no finite number of at most {LARGEST:g}")
        if len(self._values) < _MANY:
            self._values = list(dict.fromkeys([*self._values, *values.tolist()]))[:_MANY]
        # From the first: squares of what lies far from zero and close together lose what they are
        # summed for.
        values = values - (self._values[0] if self._values else 0.0)
        return np.array([len(values), values.sum(), (values**2).sum()])

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        total = before[0] + after[0]
        if 0 < len(self._values) < _MANY <= total[0]:
            return self._two.weigh(self._passes(before), self._passes(after))
        weighed = [self._weighed(before, after, total, prior) for prior in _PRIORS]
        logs = np.stack([log for log, _ in weighed])
        log = np.logaddexp.reduce(logs)
        shares = np.exp(logs - log)
        return log, Means(*np.einsum("pk,pfk->fk", shares, np.stack([of for _, of in weighed])))

    def _passes(self, sums: Floats) -> Floats:
        """How often the better and the worse of two numbers came, (K, 2)."""
        first, other = self._values[0], self._values[-1]
        others = np.rint(sums[:, 1] / (other - first)) if other != first else 0.0 * sums[:, 0]
        counts = [sums[:, 0] - others, others]
        return np.stack(counts if self._sign * (other - first) >= 0 else counts[::-1], axis=1)

    def _weighed(
        self, before: Floats, after: Floats, total: Floats, prior: tuple[float, float]
    ) -> tuple[Floats, Floats]:
        """Under one prior: log evidence (K,), and the fields of `Means`, (6, K)."""
        share, pseudo = prior
        count = max(total[0], 1.0)
        centre = total[1] / count
        scale = max((total[2] / count - centre**2) * count / max(count - 1.0, 1.0), _SMALLEST)
        degrees = 1.0
        strengths, means, squares = [], [], np.full(len(before), degrees * scale / 4)
        for side in (before, after):
            n, mean = side[:, 0], side[:, 1] / np.maximum(side[:, 0], 1.0)
            strength = pseudo + n
            within = np.maximum(side[:, 2] - n * mean**2, 0.0)
            squares += within + pseudo * n / strength * (mean - centre) ** 2
            strengths.append(strength)
            means.append((pseudo * centre + side[:, 1]) / strength)
        degrees += total[0]
        log = np.log(share * pseudo) - 0.5 * (
            np.log(strengths[0]) + np.log(strengths[1]) + degrees * np.log(squares)
        )
        # The prior of the means is cut to where bad is worse by `least`: what is left of it now, by
        # what was left beforehand. A side of which nothing was seen says nothing of it.
        spread = np.sqrt(1.0 / strengths[0] + 1.0 / strengths[1])
        apart = self._sign * (means[1] - means[0]) / np.sqrt(squares / degrees) / spread
        left = _log_phi(_as_normal(apart, degrees) - self._least / spread)
        cut = left - _log_phi(np.array(-self._least * np.sqrt(0.5 * pseudo)))
        log = log + np.where((before[:, 0] > 0) & (after[:, 0] > 0), cut, 0.0)
        variance = squares / max(degrees - 2.0, 1.0)
        variances = [variance * (1.0 + 1.0 / strength) for strength in strengths]
        told = [0.5 * np.log2(1.0 + 1.0 / strength) for strength in strengths]
        return log, np.stack([*means, *variances, *told])

    def along(self, shares: Floats, sums: Floats) -> Floats:
        """As `weigh`, the means of the two ends in the place of the sides': a regression with
        conjugate priors (Murphy, §7.6)."""
        counts, total = sums[:, 0], sums.sum(axis=0)
        centre = total[1] / max(total[0], 1.0)
        values = sums[:, 1] - centre * counts
        squares = total[2] - total[0] * centre**2
        scale = max(squares / max(total[0] - 1.0, 1.0), _SMALLEST)
        good = 1.0 - shares
        b = (good * shares) @ counts
        u, v = good @ values, shares @ values
        logs = []
        for share, pseudo in _PRIORS:
            a = (good**2) @ counts + pseudo
            d = (shares**2) @ counts + pseudo
            determinant = a * d - b * b
            explained = (d * u * u - 2.0 * b * u * v + a * v * v) / determinant
            rest = np.maximum(squares - explained, 0.0) + scale / 4
            log = np.log(determinant) + (1.0 + total[0]) * np.log(rest)
            logs.append(np.log(share * pseudo) - 0.5 * log)
        return np.asarray(np.logaddexp.reduce(logs))


class PairedBinary:
    """Outcomes are −1, 0 and 1: a sample that got better, stayed, or got worse than the good end.

    The bad side has three unknown shares with a Dirichlet prior. On the good side as many samples
    get better as get worse, and only their unknown share (`churn`) has a prior, a beta: a good
    checkpoint differs from another one for no reason, and is not told from a bad one by it.

    Args:
        churn: share of samples expected to differ between two good checkpoints.
    """

    width = 3

    def __init__(self, churn: float = 0.05) -> None:
        if not 0 < churn < 1:
            raise ValueError("churn must be within (0, 1)")
        self._good = _GOOD * np.array([1.0 - churn, churn])
        self._bad = _BAD * np.array([churn / 2, 1.0 - _HARM, _HARM]) / (1.0 + churn / 2)

    def statistics(self, outcome: Any) -> Floats:
        values = np.atleast_1d(np.asarray(outcome, dtype=np.float64))
        if not np.isin(values, (-1.0, 0.0, 1.0)).all():
            raise ValueError(f"{outcome!r} is not made of −1, 0 and 1")
        return np.array([np.count_nonzero(values == v) for v in (-1.0, 0.0, 1.0)], np.float64)

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        changed = before[:, 0] + before[:, 2]
        good = np.stack([before[:, 1], changed], axis=1) + self._good
        bad = after + self._bad
        log = _log_dirichlet(good) + _log_dirichlet(bad) - changed * np.log(2.0)
        share = good[:, 1] / good.sum(axis=1)
        mean, variance = _harm(bad)
        none = np.zeros(len(good))
        return log, Means(none, mean, share, variance, none, none)

    def along(self, shares: Floats, sums: Floats) -> Floats:
        rest, churn = self._good
        good = np.array([0.5 * churn, rest, 0.5 * churn])
        return mixed_shares(shares, sums, good, self._bad)


def expected_churn(harms: Floats) -> float:
    """The `churn` to expect of good checkpoints, from one known to be bad: as many samples as got
    better there get better, and as many worse, for no reason.

    What broke cannot get better, so it is counted among the rest, whose share is 1 − mean harm.

    Args:
        harms: (samples,) of −1, 0 and 1: better, the same, worse.
    """
    better = float((harms < 0).sum())
    untouched = len(harms) * (1.0 - max(float(harms.mean()) if len(harms) else 0.0, 0.0))
    return min(2.0 * (better + 0.5) / (untouched + 20.0), 0.5)


def _log_dirichlet(a: Floats) -> Floats:
    """Log of the multivariate beta function of every row."""
    gamma = np.vectorize(lgamma, otypes=[np.float64])
    return np.asarray(gamma(a).sum(axis=1) - gamma(a.sum(axis=1)))


def _harm(a: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of one outcome under a Dirichlet posterior."""
    shares = a / a.sum(axis=1, keepdims=True)
    mean = shares[:, 2] - shares[:, 0]
    return mean, shares[:, 2] + shares[:, 0] - mean**2
