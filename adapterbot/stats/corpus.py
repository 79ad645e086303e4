"""Metrics of a whole corpus (BLEU, perplexity): functions of sums over its samples.

The metric of a resample is `aggregate` of the resampled sums, so baseline and candidate are
resampled together, and a permutation swaps whole samples between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from adapterbot.stats.distributions import (
    FloatArray,
    IntArray,
    normal_cdf,
    normal_quantile,
    student_quantile,
)
from adapterbot.stats.effect import POWER, normal_growth
from adapterbot.stats.resampling import (
    content_generator,
    resampled_totals,
    signed_sums,
    tail_shares,
)

Aggregate = Callable[[FloatArray], FloatArray]
"""The metric of corpora with these sums: shape (…, k) to shape (…)."""


@dataclass(frozen=True, eq=False)
class CorpusDifference:
    """The difference of a corpus metric.

    `pivots` are the sorted bootstrap harms; `bias` and `acceleration` are BCa's z₀ and a;
    `error` is the jackknife's standard error.
    """

    harm: float
    deviation: float
    error: float
    df: int
    p_worse: float
    p_better: float
    bias: float
    acceleration: float
    pivots: FloatArray

    def bounds(self, alpha: float) -> tuple[float, float]:
        """The wider of the BCa and the Student-t bound, on each side.

        BCa: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), at a
        level widened for small samples as in T. Hesterberg, "What teachers should know about the
        bootstrap", Am. Stat. 69 (2015): z(α′) = √(G / (G − 1)) · t(α).
        """
        student = student_quantile(1 - alpha, self.df)
        z = math.sqrt((self.df + 1) / self.df) * student
        low = min(self._percentile(-z), self.harm - student * self.error)
        high = max(self._percentile(z), self.harm + student * self.error)
        return low, high

    def _percentile(self, z: float) -> float:
        moved = self.bias + z
        share = normal_cdf(self.bias + moved / max(1 - self.acceleration * moved, 1e-3))
        count = len(self.pivots)
        # From either end with the same rounding, so that swapping the sides mirrors the digits.
        if share > 0.5:
            rank = max(1, math.floor((1 - share) * (count + 1)))
            return float(self.pivots[-rank])
        return float(self.pivots[max(1, math.floor(share * (count + 1))) - 1])

    def growth(self, distance: float, alpha: float) -> float:
        return normal_growth(self.error, distance, alpha)

    @property
    def largest(self) -> float | None:
        return None

    def detectable(self, alpha: float) -> float | None:
        """(t(1 − α) + t(POWER)) · SE: normal theory. None where nothing ever varies."""
        if self.error == 0:
            return None
        reach = student_quantile(1 - alpha, self.df) + student_quantile(POWER, self.df)
        return reach * self.error

    def mirrored(self) -> CorpusDifference:
        """The same with the sides swapped."""
        return replace(
            self,
            harm=-self.harm,
            p_worse=self.p_better,
            p_better=self.p_worse,
            bias=-self.bias,
            acceleration=-self.acceleration,
            pivots=-self.pivots[::-1],
        )


def corpus_difference(
    baseline: FloatArray,
    candidate: FloatArray,
    aggregate: Aggregate,
    *,
    worse_when_higher: bool,
    clusters: IntArray | None,
    resamples: int,
) -> CorpusDifference | None:
    """Estimate, test and interval of the harm to a corpus metric.

    Args:
        baseline: additive statistics per sample, shape (n, k); not all equal to `candidate`.
        candidate: the same of the candidate, in the same order.
        clusters: an integer label per sample, None where every sample stands alone.

    Returns:
        None where there are fewer than two clusters, or the metric is undefined without one.
    """
    rises = _metric(candidate, aggregate) >= _metric(baseline, aggregate)
    # Always the rise from the lower to the higher side, so that a swap mirrors every digit.
    low, high = (baseline, candidate) if rises else (candidate, baseline)
    found = _rise(_units(np.hstack([low, high]), clusters), aggregate, resamples)
    return found if found is None or rises == worse_when_higher else found.mirrored()


def _metric(stats: FloatArray, aggregate: Aggregate) -> float:
    return float(aggregate(np.array([math.fsum(column) for column in stats.T])))


def _rise(units: FloatArray, aggregate: Aggregate, resamples: int) -> CorpusDifference | None:
    """The metric of the right half of the columns minus that of the left half."""
    count, width = len(units), units.shape[1] // 2
    if count < 2:
        return None

    def rises(sums: FloatArray) -> FloatArray:
        return aggregate(sums[..., width:]) - aggregate(sums[..., :width])

    totals = np.array([math.fsum(column) for column in units.T])
    rise = float(rises(totals))
    without = rises(totals - units)
    if not np.isfinite(without).all():
        return None
    # Jackknife (Efron and Tibshirani 1993, eqs. 11.5 and 14.15).
    influence = math.fsum(without) / count - without
    squares = math.fsum(influence**2)
    error = math.sqrt((count - 1) / count * squares)
    rng = content_generator(units)
    p_more, p_less = _swap(units, rises, rise, resamples, rng)
    drawn = rises(resampled_totals(units, resamples, rng))
    drawn = np.sort(drawn[np.isfinite(drawn)])
    below = float((drawn < rise).mean() + (drawn == rise).mean() / 2)
    half = 0.5 / (len(drawn) + 1)
    return CorpusDifference(
        harm=rise,
        deviation=error * math.sqrt(count),
        error=error,
        df=count - 1,
        p_worse=p_more,
        p_better=p_less,
        bias=normal_quantile(min(max(below, half), 1 - half)),
        acceleration=math.fsum(influence**3) / (6 * squares**1.5) if squares else 0.0,
        pivots=drawn,
    )


def _units(rows: FloatArray, clusters: IntArray | None) -> FloatArray:
    """Sums per cluster in an order that depends on nothing but their values."""
    if clusters is not None:
        rows = rows[np.lexsort((*rows.T, clusters))]
        _, starts = np.unique(np.sort(clusters), return_index=True)
        rows = np.add.reduceat(rows, starts, axis=0)
    return rows[np.lexsort(rows.T)]


def _swap(
    units: FloatArray, rises: Aggregate, rise: float, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Both tails of the rise when each unit's two sides are swapped at random.

    "Approximate randomisation": E. Noreen (1989); S. Riezler and J. Maxwell (2005). With D the
    units' differences and T their total, a pattern s of signs gives the sides (T ∓ Σ s·D) / 2,
    and its mirror image −s the same sides swapped: minus the rise.
    """
    width = units.shape[1] // 2
    before, after = units[:, :width], units[:, width:]
    middle = (before + after).sum(axis=0) / 2
    apart, exact = signed_sums((after - before) / 2, draws, rng)
    null = rises(np.hstack([middle - apart, middle + apart]))
    return tail_shares(null[np.isfinite(null)], rise, exact=exact)
