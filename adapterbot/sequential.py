"""Stop evaluating as soon as the answer is clear, without paying for having looked.

`Sequential` is told the scores of one chunk of samples after another and says when a metric is
settled. It knows nothing of suites or engines. What it has seen goes to `verdict.judge` like any
other delta; its p-values and bounds hold wherever one stopped (`stats.betting`). The price: a
suite used up to its end finds a drop 1.4–1.6 × as large as a fixed comparison would with equal
power. The gain: a drop of twice what the fixed comparison detects takes 30–45 % of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.errors import InputError
from adapterbot.paired import LEVEL, Facts, Metric, Paired
from adapterbot.records import Standing, Unit
from adapterbot.records.deltas import FEWEST
from adapterbot.stats.alignment import align, exact_mean
from adapterbot.stats.betting import AnytimeDifference
from adapterbot.stats.distributions import FloatArray
from adapterbot.stats.proportions import PairedProportions


class Sequential:
    """One metric, chunk by chunk.

    Args:
        metric: what is measured. Of unit `fraction`, scores must lie in 0…1, and the test is one
            of the mean whatever their distribution; other scores are tested as by sign flips, for
            differences that are symmetric if nothing changed.
        margin: the harm to rule out.
        alpha: level of the upper bound that makes a metric ok.
        alpha_worse: level of the lower bound that makes it regressed; α over the number of gated
            metrics, so that Holm in `verdict.judge` cannot disagree.
        least_effect: harm below which nothing is called a regression.
        largest_cluster: samples in the largest cluster that will come.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        margin: float,
        alpha: float = 0.05,
        alpha_worse: float | None = None,
        least_effect: float = 0.0,
        largest_cluster: int = 1,
    ) -> None:
        self._metric = metric
        self._margin = margin
        self._alpha = alpha
        self._alpha_worse = alpha if alpha_worse is None else alpha_worse
        self._least_effect = least_effect
        self._largest_cluster = largest_cluster
        self._baseline: list[float] = []
        self._candidate: list[float] = []
        self._units: list[float] = []
        self._sizes: list[float] = []
        self._ends: list[int] = []
        self._missing = 0
        self._clusters: set[Hashable] = set()

    def update(
        self,
        baseline: ArrayLike,
        candidate: ArrayLike,
        *,
        clusters: Sequence[Hashable] | None = None,
    ) -> Standing | None:
        """Take the scores of the next chunk of samples.

        Args:
            baseline: one score per sample, NaN where there is none.
            candidate: the same of the candidate, in the same order.
            clusters: a label per sample; a cluster must be complete within its chunk.

        Returns:
            `REGRESSED`, `OK`, `NOT_JUDGED` after a missing score, or None: go on.

        Raises:
            InputError: the chunk does not pair up, a cluster is continued or larger than was said,
                or a fraction does not lie in 0…1.
        """
        before, after, labels, missing = align(baseline, candidate, clusters)
        if self._bounded and any(((side < 0) | (side > 1)).any() for side in (before, after)):
            raise InputError("a fraction must lie in 0…1", field=self._metric.task)
        names = set(clusters or ())
        if names & self._clusters:
            raise InputError("a cluster is continued in another chunk", field=self._metric.task)
        self._clusters |= names
        self._missing += missing
        self._baseline += before.tolist()
        self._candidate += after.tolist()
        harm = self._harm(before, after)
        sizes = np.ones(len(harm))
        if labels is not None:
            # Rows of a cluster by size, so that no order of rows shows in its sum.
            order = np.lexsort((harm, labels))
            harm = np.bincount(labels[order], weights=harm[order]).astype(np.float64)
            sizes = np.bincount(labels).astype(np.float64)
        if len(harm):
            if sizes.max() > self._largest_cluster:
                raise InputError("a cluster is larger than was said", field=self._metric.task)
            # Sorted, so that no order of rows inside a chunk shows in a sum.
            order = np.lexsort((sizes, harm))
            self._units += harm[order].tolist()
            self._sizes += sizes[order].tolist()
            self._ends.append(len(self._units))
        return self._settled()

    def paired(self, *, level: float = LEVEL) -> Paired:
        """Everything so far as a delta, for `verdict.judge`."""
        before, after = np.array(self._baseline), np.array(self._candidate)
        facts = Facts(
            metric=self._metric,
            n=len(before),
            units=len(self._units),
            missing=self._missing,
            baseline=exact_mean(before),
            candidate=exact_mean(after),
            level=level,
        )
        effect = self._effect() if len(self._units) > 1 else None
        return facts.described(effect, change=exact_mean(after - before), alike=self._alike())

    @property
    def _bounded(self) -> bool:
        return self._metric.unit is Unit.FRACTION

    def _harm(self, before: FloatArray, after: FloatArray) -> FloatArray:
        return self._metric.direction.worse * (after - before)

    def _alike(self) -> bool:
        return len(self._baseline) > 0 and self._baseline == self._candidate

    def _effect(self) -> AnytimeDifference | PairedProportions | None:
        if self._alike() and not self._bounded:
            # Bets on symmetry have nothing to go by. The rule of three does not mind being looked
            # at all along: the first look that could settle is the only one that can be wrong.
            most = max(self._baseline) - min(self._baseline)
            return PairedProportions(len(self._units), 0, 0, scale=most) if most > 0 else None
        harm = self._harm(np.array(self._baseline), np.array(self._candidate))
        mean = math.fsum(harm) / len(harm)
        return AnytimeDifference(
            units=np.array(self._units) / self._largest_cluster,
            sizes=np.array(self._sizes) / self._largest_cluster,
            ends=tuple(self._ends),
            bounded=self._bounded,
            harm=mean,
            deviation=math.sqrt(math.fsum((harm - mean) ** 2) / (len(harm) - 1)),
        )

    def _settled(self) -> Standing | None:
        if self._missing:
            return Standing.NOT_JUDGED
        found = self._effect() if len(self._units) >= FEWEST else None
        if found is None:
            return None
        if found.p_worse <= self._alpha_worse and found.harm >= self._least_effect:
            return Standing.REGRESSED
        if isinstance(found, AnytimeDifference):
            # What `bounds` would say, without searching for the bound.
            settled = found.evidence_below(self._margin) >= -math.log(self._alpha)
        else:
            settled = found.bounds(self._alpha)[1] < self._margin
        return Standing.OK if settled else None
