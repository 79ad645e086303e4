"""Testing by betting: evidence that may be looked at after every chunk of samples.

A bettor against "the harm is at most m" multiplies its wealth by a gain g(x) of every harm x, with
E[g] ≤ 1 if the claim is true. Wealth of 1/α is then reached, ever, with probability α at most
(Ville 1939), so one may stop whenever one likes. The bettor's stakes λ are a fixed mixture, so no
order of samples inside a chunk changes anything.

    scores in 0…1    g = 1 + λ (x − m) / (1 + m)        Waudby-Smith and Ramdas, "Estimating means
                                                        of bounded random variables by betting",
                                                        JRSS B 86 (2024): valid for any mean
    other numbers    g = 1 + tanh(λ (x − m) / scale)    e^y / cosh y, an e-value wherever x is
                                                        symmetric about m (de la Peña 1999): the
                                                        null of the sign-flip test

Bets on "the harm is at least m" are the mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adapterbot.stats.distributions import FloatArray, normal_quantile
from adapterbot.stats.effect import POWER

_BOUNDED_STAKES = np.geomspace(0.1, 0.9, 4)
# In root mean squares of the first chunk. Larger stakes find more, but become a test of the median.
_SYMMETRIC_STAKES = np.geomspace(0.06, 0.5, 4)
_MIXING = 0.4  # nats that the mixture loses to the best of its stakes, by simulation


@dataclass(frozen=True)
class AnytimeDifference:
    """A mean harm whose p-values and bounds hold at whatever sample one stopped.

    A cluster is one unit and weighs as many samples as it has, S − m·N in the place of x − m: the
    claim is one about the mean over samples.

    Attributes:
        units: the harm of each sample, or S of each cluster, in order of arrival.
        sizes: 1 for each sample, or N of each cluster. Both are in shares of the largest cluster
            that may come, which is known before anything is won.
        ends: how many units had arrived at each look.
        bounded: whether scores lie in 0…1, so that harms lie in −1…1.
        harm: the mean over samples.
        deviation: the standard deviation over samples.
    """

    units: FloatArray
    sizes: FloatArray
    ends: tuple[int, ...]
    bounded: bool
    harm: float
    deviation: float

    @cached_property
    def error(self) -> float:
        """Over units, with half a unit of ±1 (of ± the root mean square) added: never 0."""
        count = len(self.units)
        size = math.fsum(self.sizes) / count
        square = size**2 if self.bounded else math.fsum(self.units**2) / count
        total = size * (count + 1)
        mean = math.fsum(self.units) / total
        squares = math.fsum((self.units - mean * self.sizes) ** 2) + square + (mean * size) ** 2
        return math.sqrt(squares) / total

    @property
    def largest(self) -> float | None:
        return 1.0 if self.bounded else None

    @cached_property
    def p_worse(self) -> float:
        """1 / the largest wealth so far of the bets against "no harm"."""
        return min(1.0, math.exp(-self.evidence_above(0.0)))

    @cached_property
    def p_better(self) -> float:
        return min(1.0, math.exp(-self.evidence_below(0.0)))

    def evidence_above(self, claim: float) -> float:
        """The largest log wealth at any look against "the harm is at most `claim`"."""
        return float(self._path(self.units - claim * self.sizes, 1.0 + claim).max())

    def evidence_below(self, claim: float) -> float:
        """The largest log wealth at any look against "the harm is at least `claim`"."""
        return float(self._path(claim * self.sizes - self.units, 1.0 - claim).max())

    def _path(self, beyond: FloatArray, room: float) -> FloatArray:
        """Log wealth at every look. Where bounded, `beyond` is at least −`room`."""
        if self.bounded:
            stakes = _BOUNDED_STAKES / room if room > 0 else np.zeros(1)
            gains = np.log1p(beyond[:, None] * stakes)
        else:
            # Sizes without signs, of the first look that shows any: known before anything is won.
            first = next((end for end in self.ends if beyond[:end].any()), 1)
            scale = math.sqrt(float(np.mean(beyond[:first] ** 2)))
            stakes = _SYMMETRIC_STAKES / scale if scale > 0 else np.zeros(1)
            # log(1 + tanh y) without the cancellation that would make a far outlier ruinous.
            gains = math.log(2) - np.logaddexp(0.0, -2 * beyond[:, None] * stakes)
        starts = [0, *self.ends[:-1]]
        wealth = np.cumsum(np.add.reduceat(gains, starts, axis=0), axis=0)
        most = wealth.max(axis=1)
        mixed: FloatArray = most + np.log(np.exp(wealth - most[:, None]).mean(axis=1))
        return mixed

    def bounds(self, alpha: float) -> tuple[float, float]:
        """The claims nearest to the estimate that lost at level `alpha`, on either side."""
        need = -math.log(alpha)
        low = self._nearest(lambda claim: self.evidence_above(claim) >= need, -1)
        high = self._nearest(lambda claim: self.evidence_below(claim) >= need, 1)
        return low, high

    def _nearest(self, lost: Callable[[float], bool], side: int) -> float:
        """Where claims begin to lose, going from the mean to the given side; ±∞ if none does."""
        inside = math.fsum(self.units) / math.fsum(self.sizes)
        outside = self._lost_claim(inside, lost, side)
        if not math.isfinite(outside):
            return outside
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if lost(middle) else (middle, outside)
        return outside

    def _lost_claim(self, start: float, lost: Callable[[float], bool], side: int) -> float:
        """Any claim that lost, found in steps that double; the end of the scale where bounded."""
        step = self.error
        while step <= 1e6 * self.error:
            claim = start + side * step
            if self.bounded and abs(claim) >= 1:
                return float(side)
            # Without any spread a step is 0, and the claim the mean itself.
            if lost(claim) or step == 0:
                return claim
            step *= 2
        return side * math.inf

    def detectable(self, alpha: float) -> float | None:
        """The true harm that these samples, looked at all along, find with `POWER`.

        Log wealth is about normal with mean u²/2 and variance u² for a harm of u standard errors
        and the best stake, and has to reach log(1/α) and what the mixture costs. Where units are
        bounded and differ by little (small steps of a grade, large clusters), the best stake would
        be more than there is; of the largest, λ, the mean is n (log(1 + λx) − λ²σ²/2) and the
        variance nλ²σ².
        """
        best = self._reach(alpha) * self.error
        if not self.bounded:
            return best
        z, count = normal_quantile(POWER), len(self.units)
        size, spread, stake = self._size, self._spread, float(_BOUNDED_STAKES[-1])
        short = best * size / (stake * spread**2)  # how much larger the best stake would be
        if short <= 1:
            return best
        needed = _needed(short, alpha)
        gain = (needed + z * stake * math.sqrt(count) * spread) / count + (stake * spread) ** 2 / 2
        return math.expm1(gain) / stake / size

    def growth(self, distance: float, alpha: float) -> float:
        """As `detectable`, for the number of units instead of the harm."""
        size, spread, stake = self._size, self._spread, float(_BOUNDED_STAKES[-1])
        short = distance * size / (stake * spread**2) if self.bounded else 0.0
        if short <= 1:
            errors = self._reach(alpha) * self.error / distance
            return errors * errors
        # n · gain = needed + z √n λσ, solved for √n.
        gain = math.log1p(stake * distance * size) - (stake * spread) ** 2 / 2
        noise = normal_quantile(POWER) * stake * spread
        root = (noise + math.sqrt(noise**2 + 4 * gain * _needed(short, alpha))) / (2 * gain)
        return root * root / len(self.units)

    def _reach(self, alpha: float) -> float:
        """How many standard errors a harm is found from, at the best stake."""
        z = normal_quantile(POWER)
        return z + math.sqrt(z * z + 2 * (_MIXING - math.log(alpha)))

    @property
    def _size(self) -> float:
        return math.fsum(self.sizes) / len(self.units)

    @property
    def _spread(self) -> float:
        """The standard deviation of a unit."""
        return math.sqrt(len(self.units)) * self._size * self.error


def _needed(short: float, alpha: float) -> float:
    """Log wealth to be reached with the largest stake, where the best would be `short` times as
    large: the further it is away, the less is won by the other stakes of the mixture."""
    return min(short * _MIXING, math.log(len(_BOUNDED_STAKES))) - math.log(alpha)
