"""Outcomes that are good or bad: with unknown failure rates on both sides, or never wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bisect.evidence import Floats, Prediction, entropy, split


@dataclass(frozen=True)
class Rates:
    """Chances of "bad" on the good and on the bad side, (K,) each."""

    good: Floats
    bad: Floats

    def information(self, weights: Floats, at: NDArray[np.intp], size: float) -> Floats:
        """Mutual information of one outcome and the change point, exactly; further outcomes of the
        same probe are counted as if each brought as much."""
        expected = split(weights, self.good[at], self.bad[at])
        noise = split(weights, entropy(self.good)[at], entropy(self.bad)[at])
        return np.maximum(entropy(expected) - noise, 0.0) * size

    def looks_bad(self, size: float) -> tuple[Floats, Floats]:
        del size  # several outcomes of a process are asked for one by one
        return self.good, self.bad


class PassFail:
    """Outcomes True (bad) and False (good), with unknown failure rates on both sides.

    Rates θ₀ (good side) and θ₁ (bad side) have Beta priors, cut to θ₁ ≥ θ₀ + `least`, and are
    integrated over a grid jointly with the change point. Jeffreys' Beta(½, ½) is the default:
    priors that lean towards 0 and 1 claim too much when an eval is very noisy.

    Args:
        good, bad: (α, β) of the two priors; α counts failures.
        least: the smallest rise in the failure rate that counts as broken. Without one "nothing
            broke" could never be told from "a break too small to see".
        nodes: grid points for each rate, in arcsine steps.
    """

    width = 2

    def __init__(
        self,
        good: tuple[float, float] = (0.5, 0.5),
        bad: tuple[float, float] = (0.5, 0.5),
        *,
        least: float = 0.1,
        nodes: int = 96,
    ) -> None:
        if min(*good, *bad) <= 0 or not 0 <= least < 1 or nodes < 8:
            raise ValueError("priors must be positive, `least` in [0, 1), `nodes` at least 8")
        # θ = sin²(πu/2) with u uniform: dense where rates near 0 and 1 need it, and Beta(½, ½) is
        # flat in u.
        u = (np.arange(nodes) + 0.5) / nodes
        theta = np.sin(0.5 * np.pi * u) ** 2
        self._theta = theta
        self._log = np.log(np.stack([1.0 - theta, theta]))

        def mass(prior: tuple[float, float]) -> Floats:
            log = (prior[0] - 0.5) * self._log[1] + (prior[1] - 0.5) * self._log[0]
            weights: Floats = np.exp(log - log.max())
            return np.asarray(weights / weights.sum())

        self._good, self._bad = mass(good), mass(bad)
        # For each θ₁ how many θ₀ lie at least `least` below it.
        self._below = np.searchsorted(theta, theta - least, side="right" if least else "left")
        self._below_before = np.maximum(self._below - 1, 0)
        allowed = float((self._bad * self._upto(self._good[None])[0]).sum())
        if allowed <= 0:
            raise ValueError("`least` leaves no rates")
        self._log_allowed = float(np.log(allowed))

    def _upto(self, values: Floats) -> Floats:
        """Σ over the allowed θ₀ for every θ₁: (K, nodes) → (K, nodes)."""
        sums = np.cumsum(values, axis=1)[:, self._below_before]
        sums[:, self._below == 0] = 0.0
        return sums

    def statistics(self, outcome: Any) -> Floats:
        bad = np.atleast_1d(np.asarray(outcome))
        if bad.dtype != np.bool_:
            raise ValueError(f"{outcome!r} is neither good (False) nor bad (True)")
        return np.array([np.count_nonzero(~bad), np.count_nonzero(bad)], dtype=np.float64)

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        log_good, log_bad = before @ self._log, after @ self._log
        top_good = log_good.max(axis=1, keepdims=True)
        top_bad = log_bad.max(axis=1, keepdims=True)
        good = np.exp(log_good - top_good) * self._good
        bad = np.exp(log_bad - top_bad) * self._bad
        joint = bad * self._upto(good)
        evidence = np.maximum(joint.sum(axis=1), 1e-300)
        rate_bad = joint @ self._theta / evidence
        rate_good = (bad * self._upto(good * self._theta)).sum(axis=1) / evidence
        log = np.log(evidence) + top_good[:, 0] + top_bad[:, 0] - self._log_allowed
        return log, Rates(rate_good, rate_bad)


class Exact:
    """Outcomes True (bad) and False (good) that are never wrong: classic bisection."""

    width = 2
    statistics = PassFail.statistics

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        wrong = (before[:, 1] > 0) | (after[:, 0] > 0)
        sides = np.zeros(len(before)), np.ones(len(before))
        return np.where(wrong, -np.inf, 0.0), Rates(*sides)
