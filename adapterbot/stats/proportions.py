"""Paired 0/1 scores: only the pairs that disagree count, and everything follows from two counts.

With b pairs where the candidate is worse, c where it is better, and n in all:
harm = (b − c) / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from adapterbot.stats.distributions import binomial_pmf, log_factorials, normal_quantile
from adapterbot.stats.effect import POWER, normal_growth

_EXACT_DISCORDANT = 60  # up to which power is summed; beyond, the normal form is within 2 %


@dataclass(frozen=True)
class PairedProportions:
    """Counts of discordant pairs.

    `scale` is what one discordant pair is worth: 1 for 0/1 scores. Other scores that were equal on
    every pair stand here too, with the largest difference that a pair could have shown.
    """

    n: int
    worse: int
    better: int
    scale: float = 1.0

    @property
    def harm(self) -> float:
        return self.scale * (self.worse - self.better) / self.n

    @property
    def deviation(self) -> float:
        """√(Σ(h − h̄)² / (n − 1))."""
        if self.n < 2:
            return 0.0
        mean = (self.worse - self.better) / self.n
        squares = self.worse + self.better - self.n * mean**2
        return self.scale * math.sqrt(max(squares, 0.0) / (self.n - 1))

    def growth(self, distance: float, alpha: float) -> float:
        return normal_growth(self.error, distance, alpha)

    @property
    def largest(self) -> float | None:
        return self.scale

    @property
    def error(self) -> float:
        """Wald's with half a pair added to each discordant cell (Agresti and Min 2005)."""
        total = self.n + 1
        mean = (self.worse - self.better) / total
        return self.scale * math.sqrt(((self.worse + self.better + 1) / total - mean**2) / total)

    @property
    def p_worse(self) -> float:
        return mid_p(self.worse, self.better)

    @property
    def p_better(self) -> float:
        return mid_p(self.better, self.worse)

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Tango's score bounds; without discordant pairs the rule of three.

        T. Tango, "Equivalence test and confidence interval for the difference in proportions for
        the paired-sample design", Statistics in Medicine 17 (1998). Enumerated over
        n = 30, 100, 300 and discordance 2–50 %, its 95 % interval covers 94 % or more; Wald's falls
        to 76 % and the conditional one to 55 % where few pairs disagree or all in one direction.
        With b = c = 0 the score bound is a little short of the exact 1 − α^(1/n) ≈ 3/n, so that
        one is taken.
        """
        if self.worse == self.better == 0:
            reach = self.scale * (1 - alpha ** (1 / self.n))
            return -reach, reach
        return (
            -self.scale * _tango_upper(self.better, self.worse, self.n, alpha),
            self.scale * _tango_upper(self.worse, self.better, self.n, alpha),
        )

    def detectable(self, alpha: float) -> float | None:
        """Least harm found by the mid-p test with `POWER` at the discordance that was seen.

        Where that harm needs more discordant pairs than were seen, every pair is taken to be a
        harmful one.
        """
        found = _detectable(self.n, self.worse + self.better, alpha)
        return None if found is None else self.scale * found


def mid_p(worse: int, better: int) -> float:
    """One-sided mid-p McNemar test against "no harm": P(X > b) + ½ P(X = b), X ~ Bin(b + c, ½).

    M. W. Fagerland, S. Lydersen, P. Laake, BMC Med. Res. Methodol. 13:91 (2013). Its size,
    enumerated for n = 10…1000, discordance up to 80 % and levels 0.05…0.001, exceeds the level by
    at most 1 % of it; where every pair disagrees, by up to a half.
    Without discordant pairs there is nothing to test: 1.
    """
    discordant = worse + better
    if discordant == 0:
        return 1.0
    if worse < better:
        return 1.0 - mid_p(better, worse)
    pmf = binomial_pmf(np.arange(worse, discordant + 1), discordant, 0.5)
    return min(1.0, math.fsum(pmf[1:]) + 0.5 * float(pmf[0]))


@lru_cache(maxsize=2**12)
def _tango_upper(worse: int, better: int, n: int, alpha: float) -> float:
    """The δ at which the score statistic of H₀: harm = δ falls to −z(1 − α), by bisection.

    z(δ) = (b − c − nδ) / √(n (2q̃ + δ(1 − δ))), with q̃ the restricted maximum-likelihood
    estimate of the share of better pairs: the larger root of 2n q² + B q + C = 0,
    B = −b − c + (2n − b + c) δ, C = −c δ (1 − δ).
    """
    z = normal_quantile(1 - alpha)

    def beyond(delta: float) -> bool:
        linear = -worse - better + (2 * n - worse + better) * delta
        root = math.sqrt(max(linear**2 + 8 * n * better * delta * (1 - delta), 0.0))
        share = (root - linear) / (4 * n)
        variance = n * max(2 * share + delta * (1 - delta), 0.0)
        return n * delta - (worse - better) > z * math.sqrt(variance)

    low, high = (worse - better) / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


@lru_cache(maxsize=256)
def _detectable(n: int, discordant: int, alpha: float) -> float | None:
    """In shares of the pairs."""
    seen = discordant / n
    if discordant > _EXACT_DISCORDANT:
        return _detectable_by_normal(n, seen, alpha)
    low, high = 0.0, max(seen, 1 / n) / 2
    while _power(high, n, seen, alpha) < POWER:
        if high == 1.0:
            return None
        low, high = high, min(2 * high, 1.0)
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, n, seen, alpha) >= POWER else (middle, high)
    return high


def _detectable_by_normal(n: int, seen: float, alpha: float) -> float:
    """The root δ of z(1−α) √π + z(POWER) √(π − δ²) = √n δ.

    R. J. Connor, Biometrics 43 (1987), the one-sided form.
    """
    size, power = normal_quantile(1 - alpha), normal_quantile(POWER)
    half = size * math.sqrt(n * seen)
    a = n + power**2
    return (half + math.sqrt(half**2 - a * (size**2 - power**2) * seen)) / a


def _power(harm: float, n: int, seen: float, alpha: float) -> float:
    """P(mid-p ≤ α) when the harm is `harm` and a share of max(seen, harm) pairs disagree.

    Σ_d P(d discordant) · P(b ≥ critical(d)), b ~ Bin(d, θ), θ = (π + δ) / 2π.
    """
    share = max(seen, harm)
    spread = 6 * math.sqrt(n * share * (1 - share)) + 6
    lowest = max(1, math.floor(n * share - spread))
    highest = min(n, math.ceil(n * share + spread))
    discordant = np.arange(lowest, highest + 1)
    weights = binomial_pmf(discordant, n, share)
    theta = min((share + harm) / (2 * share), 1.0)
    logs = log_factorials(highest)
    worse = np.arange(highest + 1)
    better = discordant[:, None] - worse[None, :]
    log_ways = logs[discordant][:, None] - logs[worse][None, :] - logs[np.maximum(better, 0)]
    if theta == 1.0:
        likely = (better == 0).astype(np.float64)
    else:
        likely = np.exp(log_ways + worse * math.log(theta) + better * math.log1p(-theta))
    likely = np.where(better >= 0, likely, 0.0)
    critical = np.array([_critical(int(d), alpha) for d in discordant])
    found = np.where(worse[None, :] >= critical[:, None], likely, 0.0)
    return float(weights @ found.sum(axis=1))


@lru_cache(maxsize=2**14)
def _critical(discordant: int, alpha: float) -> int:
    """The least number of harmful pairs out of `discordant` that is significant; d + 1 if none."""
    lowest = (discordant + 1) // 2
    pmf = binomial_pmf(np.arange(lowest, discordant + 1), discordant, 0.5)
    tail = np.cumsum(pmf[::-1])[::-1]
    return lowest + int((tail - pmf / 2 > alpha).sum())
