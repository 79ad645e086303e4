"""The suite as the search sees it: numbered items with weights, and what their scores add up to.

A score is oriented so that higher is better. The whole is the weighted mean of the tasks' means;
a task in a unit of its own counts in units of its margin, the drop that its owner tolerates.
numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapterbot.merge.space import FloatArray
from adapterbot.stats.distributions import student_quantile

IntArray = NDArray[np.int64]

FEWEST = 4
"""Independent samples of a task: two in either half, since one alone does not tell its error."""


class Estimate(NamedTuple):
    """A mean, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences.

    Attributes:
        error: its standard error.
        df: the degrees of freedom of that.
    """

    mean: float
    error: float
    df: int

    @property
    def interval(self) -> Estimate:
        """The mean with its interval, by Student's t."""
        reach = student_quantile(0.975, self.df) * self.error
        return Estimate(self.mean, self.mean - reach, self.mean + reach)


@dataclass(frozen=True)
class Items:
    """Every sample of a suite.

    Attributes:
        task: (n,) the number of each item's task.
        cluster: (n,) the number of each item's cluster; an item of none is its own.
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

        Var = Σ_t V_t, V_t = (n − 1)/n · Σ_c (Σ_{i∈c} share_i·(d_i − mean_t) / (1 − N_c/N_t))², the
        jackknife over the n clusters of the task as in `stats.means`, with their effective number
        n* = N_t² / Σ_c N_c²; the degrees of freedom are Var² / Σ_t V_t²/(n* − 1) (Satterthwaite,
        Biometrics Bull. 2, 1946). Tasks of which only one cluster was chosen are one stratum
        (Cochran, Sampling Techniques, 1977, §5A.12): alone, each would seem to have no error.
        """
        shares = self._shares(chosen)
        variances: list[float] = []
        squares = 0.0
        alone: list[float] = []
        for task in np.unique(self.task[chosen]):
            here = self.task[chosen] == task
            residuals = shares[here] * (differences[here] - differences[here].mean())
            _, number = np.unique(self.cluster[chosen][here], return_inverse=True)
            sizes = np.bincount(number) / len(number)
            if len(sizes) > 1:
                sums = np.bincount(number, residuals) / (1 - sizes)
                variances.append(float(sums @ sums) * (len(sums) - 1) / len(sums))
                squares += variances[-1] ** 2 / max(1 / float(sizes @ sizes) - 1, 1.0)
            else:
                alone.append(float(shares[here] @ differences[here]))
        if len(alone) > 1:
            variances.append(len(alone) * float(np.var(alone, ddof=1)))
            squares += variances[-1] ** 2 / (len(alone) - 1)
        variance = sum(variances)
        df = max(1, math.floor(variance**2 / squares)) if squares > 0 else 1
        return Difference(float(shares @ differences), math.sqrt(variance), df)

    def _shares(self, chosen: IntArray) -> FloatArray:
        tasks = self.task[chosen]
        counts = np.bincount(tasks, minlength=len(self.weight))
        present = self.weight * (counts > 0)
        return np.asarray((present / max(present.sum(), 1e-300) / np.maximum(counts, 1))[tasks])

    def split(self, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """Halves of every task, by cluster: one to choose on, one to report on.

        Raises:
            ValueError: a task has fewer than `FEWEST` clusters.
        """
        chosen: list[int] = []
        for task in range(len(self.weight)):
            clusters = np.unique(self.cluster[self.task == task])
            if len(clusters) < FEWEST:
                raise ValueError(f"task {task} has fewer than {FEWEST} independent samples")
            half = set(rng.permutation(clusters)[: len(clusters) // 2].tolist())
            here = np.flatnonzero(self.task == task).tolist()
            chosen += [i for i in here if int(self.cluster[i]) in half]
        mask = np.zeros(len(self), dtype=bool)
        mask[chosen] = True
        return np.flatnonzero(mask), np.flatnonzero(~mask)

    def interleaved(self, chosen: IntArray, rng: np.random.Generator) -> IntArray:
        """`chosen` in random order, tasks evenly spread, so that a beginning stands for all."""
        places: list[tuple[float, int]] = []
        for task in np.unique(self.task[chosen]):
            here = rng.permutation(chosen[self.task[chosen] == task])
            places += [((k + rng.random()) / len(here), int(i)) for k, i in enumerate(here)]
        return np.array([item for _, item in sorted(places)], dtype=np.int64)


def items_of(tasks: Sequence[Sequence[str | None]], weights: Sequence[float]) -> Items:
    """Items from each task's list of cluster names, None for a sample of no cluster.

    A name is its task's own: two tasks that use the same one have two clusters of it.
    """
    numbers: list[int] = []
    clusters: list[int] = []
    known: dict[tuple[int, str | int], int] = {}
    for number, samples in enumerate(tasks):
        for name in samples:
            key = (number, len(numbers) if name is None else name)
            clusters.append(known.setdefault(key, len(known)))
            numbers.append(number)
    return Items(
        np.array(numbers, dtype=np.int64),
        np.array(clusters, dtype=np.int64),
        np.array(weights, dtype=float),
    )
