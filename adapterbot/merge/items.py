"""The suite as the search sees it: numbered items with weights, and what their scores add up to.

A score is oriented so that higher is better. The whole is the weighted mean of the tasks' means;
a task in a unit of its own counts in units of its margin, the drop that its owner tolerates.
numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapterbot.merge.space import FloatArray
from adapterbot.stats.distributions import student_quantile
from adapterbot.stats.means import sign_flip
from adapterbot.stats.resampling import content_generator

IntArray = NDArray[np.int64]

FEWEST = 4
"""Independent samples of a task: two in either half, since one alone does not tell its error."""

_TAIL = 0.025  # of either end of an interval
_SIGNS = 10_000  # patterns of signs that are drawn where not all are counted
_TRIES = 100  # of halving the tasks


class Estimate(NamedTuple):
    """A mean, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Difference:
    """A mean of paired differences.

    Attributes:
        error: its standard error.
        df: the degrees of freedom of that.
        parts: (clusters,) what each of them adds to the mean.
    """

    mean: float
    error: float
    df: int
    parts: FloatArray

    @property
    def interval(self) -> Estimate:
        """The mean with its interval, by Student's t.

        It also holds 0 where the parts' signs alone would come to this mean in more than one of 40
        cases: few scores of 0 and 1 may differ all in one way, by chance, and show no error.
        """
        reach = student_quantile(1 - _TAIL, self.df) * self.error
        parts = np.sort(self.parts)
        if min(sign_flip(parts, _SIGNS, content_generator(parts[:, None]))) > _TAIL:
            reach = max(reach, abs(self.mean))
        return Estimate(self.mean, self.mean - reach, self.mean + reach)


@dataclass(frozen=True)
class Items:
    """Every sample of a suite.

    Attributes:
        task: (n,) the number of each item's task.
        cluster: (n,) the number of each item's cluster, which may reach over tasks.
        weight: (tasks,) how much each task counts.
    """

    task: IntArray
    cluster: IntArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.task)

    def mean(self, scores: FloatArray, chosen: IntArray) -> float:
        """The whole of `scores` (one per chosen item): Σ_t ω_t·mean_t / Σ_t ω_t over tasks seen.

        Rounded once, so that the same scores in another order are the same whole: no candidate
        beats another by a last digit.
        """
        return math.fsum((self._shares(chosen) * scores).tolist())

    def difference(self, differences: FloatArray, chosen: IntArray) -> Difference:
        """Mean of paired differences and its standard error: stratified by task, by cluster.

        Var = Σ_c (Σ_t √((n_t − 1)/n_t) · Σ_{i∈c∩t} share_i·(d_i − mean_t) / (1 − N_ct/N_t))², the
        jackknife over clusters as in `stats.means`; n_t are those of the task. Tasks without a
        cluster in common are strata V_g of that sum, with their clusters' effective number n*_g =
        (Σ_c w_c)² / Σ_c w_c², w_c the share of a cluster; the degrees of freedom are
        Var² / Σ_g V_g²/(n*_g − 1) (Satterthwaite, Biometrics Bull. 2, 1946). Tasks of which only
        one cluster was chosen are one stratum (Cochran, Sampling Techniques, 1977, §5A.12): alone,
        each would seem to have no error.
        """
        shares = self._shares(chosen)
        tasks = self.task[chosen]
        _, cluster = np.unique(self.cluster[chosen], return_inverse=True)
        moved = np.zeros(len(chosen))
        alone: list[float] = []
        told = np.zeros(len(chosen), dtype=bool)
        for task in np.unique(tasks):
            here = np.flatnonzero(tasks == task)
            _, number = np.unique(cluster[here], return_inverse=True)
            sizes = np.bincount(number) / len(number)
            if len(sizes) > 1:
                residuals = shares[here] * (differences[here] - differences[here].mean())
                factor = math.sqrt((len(sizes) - 1) / len(sizes))
                moved[here] = factor * residuals / (1 - sizes[number])
                told[here] = True
            else:
                alone.append(float(shares[here] @ differences[here]))
        variances: list[float] = []
        squares = 0.0
        for group in np.unique(self._linked[tasks[told]]):
            here = np.flatnonzero(told & (self._linked[tasks] == group))
            _, number = np.unique(cluster[here], return_inverse=True)
            sums, held = np.bincount(number, moved[here]), np.bincount(number, shares[here])
            variances.append(float(sums @ sums))
            count = float(held.sum() ** 2 / (held @ held))
            squares += variances[-1] ** 2 / max(count - 1, 1.0)
        if len(alone) > 1:
            variances.append(len(alone) * float(np.var(alone, ddof=1)))
            squares += variances[-1] ** 2 / (len(alone) - 1)
        variance = sum(variances)
        df = max(1, math.floor(variance**2 / squares)) if squares > 0 else 1
        parts = np.bincount(cluster, shares * differences).astype(np.float64)
        return Difference(float(shares @ differences), math.sqrt(variance), df, parts)

    @cached_property
    def _linked(self) -> IntArray:
        """(tasks,) a number for each task, the same for those with a cluster in common."""
        found = _components(
            [self.cluster[self.task == task].tolist() for task in range(len(self.weight))]
        )
        return np.array(found, dtype=np.int64)

    def _shares(self, chosen: IntArray) -> FloatArray:
        tasks = self.task[chosen]
        counts = np.bincount(tasks, minlength=len(self.weight))
        present = self.weight * (counts > 0)
        return np.asarray((present / max(present.sum(), 1e-300) / np.maximum(counts, 1))[tasks])

    def split(self, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Halves of every task, by cluster: one to choose on, one to report on.

        Raises:
            ValueError: a task has fewer than `FEWEST` clusters, or its clusters reach over so many
                tasks that not every task has two in either half.
        """
        _, cluster = np.unique(self.cluster, return_inverse=True)
        present = np.zeros((int(cluster.max()) + 1, len(self.weight)), dtype=bool)
        present[cluster, self.task] = True
        for task, count in enumerate(present.sum(axis=0).tolist()):
            if count < FEWEST:
                raise ValueError(f"task {task} has fewer than {FEWEST} independent samples")
        reach = present.sum(axis=1)
        for _ in range(_TRIES):
            # Those of many tasks first: what they leave uneven, the others make up for.
            order = rng.permutation(len(present))
            chosen = np.zeros(len(present), dtype=bool)
            ahead = np.zeros(len(self.weight), dtype=np.int64)  # reported on less chosen on
            for one in order[np.argsort(-reach[order], kind="stable")]:
                chosen[one] = ahead[present[one]].sum() > 0
                ahead[present[one]] += -1 if chosen[one] else 1
            halves = present[chosen].sum(axis=0), present[~chosen].sum(axis=0)
            if min(map(np.min, halves)) >= FEWEST // 2:
                mask = chosen[cluster]
                return np.flatnonzero(mask), np.flatnonzero(~mask)
        raise ValueError("the tasks share clusters in a way that cannot be halved")

    def interleaved(self, chosen: IntArray, rng: np.random.Generator) -> IntArray:
        """`chosen` in random order, tasks evenly spread, so that a beginning stands for all."""
        places: list[tuple[float, int]] = []
        for task in np.unique(self.task[chosen]):
            here = rng.permutation(chosen[self.task[chosen] == task])
            places += [((k + rng.random()) / len(here), int(i)) for k, i in enumerate(here)]
        return np.array([item for _, item in sorted(places)], dtype=np.int64)


def items_of(tasks: Sequence[Sequence[Collection[Hashable]]], weights: Sequence[float]) -> Items:
    """Items from what each sample of each task is known by: samples that have any of it in common,
    of one task or of several, are one cluster. A sample known by nothing is its own."""
    return Items(
        np.array([number for number, samples in enumerate(tasks) for _ in samples], dtype=np.int64),
        np.array(_components([names for samples in tasks for names in samples]), dtype=np.int64),
        np.array(weights, dtype=float),
    )


def _components(known: Sequence[Collection[Hashable]]) -> list[int]:
    """A number for each of `known`, the same for those that share a name, directly or not."""
    first: dict[Hashable, int] = {}
    above = list(range(len(known)))

    def root(one: int) -> int:
        while above[one] != one:
            above[one] = one = above[above[one]]
        return one

    for number, names in enumerate(known):
        for name in names:
            above[root(number)] = root(first.setdefault(name, number))
    return [root(number) for number in range(len(known))]
