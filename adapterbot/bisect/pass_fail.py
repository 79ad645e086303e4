"""Outcomes that are good or bad: with unknown failure rates on both sides, or never wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bisect.evidence import Floats, Prediction, entropy, split

# Of an outcome's bits about a failure rate, those that count as if they were about the change. An
# outcome at the oldest checkpoint tells nothing of the change, and everything of the good side's
# rate, without which a change close by may never be made out.
_RATE_BITS = 0.2
# How likely it is beforehand that a good checkpoint fails in about one run of ten.
_QUIET = 0.35
# Rates of a noisy eval are the less likely the further apart they are, from this distance on.
_CLOSE, _FALL = 0.2, 5


@dataclass(frozen=True)
class Rates:
    """Chances of "bad" on the good and on the bad side, and the bits that an outcome tells of
    either chance, (K,) each."""

    good: Floats
    bad: Floats
    of_good: Floats
    of_bad: Floats

    def information(self, weights: Floats, at: NDArray[np.intp], size: float) -> Floats:
        """Mutual information of one outcome and the change point, exactly, and a part of that of
        the outcome and the rates; further outcomes of the same probe are counted as if each brought
        as much."""
        expected = split(weights, self.good[at], self.bad[at])
        noise = split(weights, entropy(self.good)[at], entropy(self.bad)[at])
        rates = split(weights, self.of_good[at], self.of_bad[at])
        return (np.maximum(entropy(expected) - noise, 0.0) + _RATE_BITS * rates) * size

    def looks_bad(self, size: float) -> tuple[Floats, Floats]:
        del size  # several outcomes of a process are asked for one by one
        return self.good, self.bad


class PassFail:
    """Outcomes True (bad) and False (good), with unknown failure rates on both sides.

    The rates θ₀ (good side) and θ₁ (bad side) are integrated over a grid jointly with the change
    point. Beforehand the eval is either quiet, Beta(1, 9) and Beta(4, 1), or noisy, Beta(3/2, 3/2)
    on both sides times (θ₁ − θ₀)⁻⁵ from `_CLOSE` on. Both are cut to θ₁ ≥ θ₀ + `least`. A prior of
    two rates that know nothing of each other, as Jeffreys', believes a lucky streak of a very noisy
    eval, in which the rates look far apart: it is sure too early.

    Args:
        least: the smallest rise in the failure rate that counts as broken. Without one "nothing
            broke" could never be told from "a break too small to see".
        nodes: grid points for each rate, in arcsine steps.
    """

    width = 2

    def __init__(self, *, least: float = 0.12, nodes: int = 96) -> None:
        if not 0 < least < 1 or nodes < 8:
            raise ValueError("`least` must be in (0, 1), `nodes` at least 8")
        # θ = sin²(πu/2) with u uniform: dense where rates near 0 and 1 need it.
        u = (np.arange(nodes) + 0.5) / nodes
        self._theta = np.sin(0.5 * np.pi * u) ** 2
        self._log = np.log(np.stack([1.0 - self._theta, self._theta]))
        self._entropy = entropy(self._theta)
        good, bad = self._theta[:, None], self._theta
        gap = bad - good
        cell = (gap >= least) * np.sqrt(good * (1.0 - good) * bad * (1.0 - bad))
        if not cell.any():
            raise ValueError("`least` leaves no rates")
        quiet = cell * (1.0 - good) ** 8 * bad**3
        noisy = cell**2 / np.maximum(gap, _CLOSE) ** _FALL
        self._prior = _QUIET * quiet / quiet.sum() + (1.0 - _QUIET) * noisy / noisy.sum()

    def statistics(self, outcome: Any) -> Floats:
        bad = np.atleast_1d(np.asarray(outcome))
        if bad.dtype != np.bool_:
            raise ValueError(f"{outcome!r} is neither good (False) nor bad (True)")
        return np.array([np.count_nonzero(~bad), np.count_nonzero(bad)], dtype=np.float64)

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        good, bad = before @ self._log, after @ self._log
        top = good.max(axis=1) + bad.max(axis=1)
        good = np.exp(good - good.max(axis=1, keepdims=True))
        bad = np.exp(bad - bad.max(axis=1, keepdims=True))
        # Each side's rate, the other one integrated out: (K, nodes).
        bad_alone = bad * (good @ self._prior)
        good *= bad @ self._prior.T
        evidence = np.maximum(bad_alone.sum(axis=1), 1e-300)
        sides = []
        for alone in (good, bad_alone):
            rate = np.clip(alone @ self._theta / evidence, 0.0, 1.0)
            told = entropy(rate) - alone @ self._entropy / evidence
            sides.append((rate, np.maximum(told, 0.0)))
        (rate_good, of_good), (rate_bad, of_bad) = sides
        return np.log(evidence) + top, Rates(rate_good, rate_bad, of_good, of_bad)


class Exact:
    """Outcomes True (bad) and False (good) that are never wrong: classic bisection."""

    width = 2
    statistics = PassFail.statistics

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        wrong = (before[:, 1] > 0) | (after[:, 0] > 0)
        good, bad = np.zeros(len(before)), np.ones(len(before))
        return np.where(wrong, -np.inf, 0.0), Rates(good, bad, good, good)
