"""CMA-ES in ask/tell form: minimises a function that it never sees.

Hansen's tutorial in full (arXiv 1604.00772, version 2; equation and table numbers are its own):
log-shaped weights with their negative part, cumulative step-size adaptation, both evolution paths,
rank-one and rank-µ updates, the stopping rules of its appendix B. numpy only; restarts live in
`merge.restarts`, and what is searched for in the caller.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import islice
from operator import index
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adapterbot.merge.parameters import Parameters, Vector, default_population

Matrix = NDArray[np.float64]

_RESAMPLINGS = 100
_CONDITION = 1e14
_TOLERANCE = 1e-12
_TOLERANCE_UP = 1e4
_HISTORY = 20_000


class CMAES:
    """Covariance matrix adaptation evolution strategy.

    Attributes:
        mean: (n,) m, the centre of the search distribution N(m, σ²C).
        sigma: σ, the overall step size.
        generation: how many populations were told.
        population: λ.
    """

    def __init__(
        self,
        mean: ArrayLike,
        sigma: float,
        population: int | None = None,
        bounds: ArrayLike | None = None,
        seed: int | None = None,
    ) -> None:
        """Starts at N(mean, σ²I).

        Args:
            mean: (n,) where the search starts, within the bounds.
            sigma: how far from there the optimum is expected, in every coordinate.
            population: λ; 4 + ⌊3 ln n⌋ when not given.
            bounds: (n, 2) lower and upper limit of each coordinate.

        Raises:
            ValueError: an argument has the wrong shape or sign.
            TypeError: the population is not a whole number.
        """
        self.mean: Vector = np.array(mean, dtype=float)
        n = self.mean.size
        if self.mean.ndim != 1 or n == 0 or not np.isfinite(self.mean).all():
            raise ValueError("mean must be a vector of finite numbers")
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError("sigma must be positive")
        self.population = default_population(n) if population is None else index(population)
        if self.population < 2:
            raise ValueError("population must be at least 2")
        self.bounds: Matrix | None = None
        if bounds is not None:
            self.bounds = np.array(bounds, dtype=float)
            if self.bounds.shape != (n, 2) or not (self.bounds[:, 0] < self.bounds[:, 1]).all():
                raise ValueError("bounds must be (n, 2), lower limits below upper ones")
            if not ((self.bounds[:, 0] <= self.mean) & (self.mean <= self.bounds[:, 1])).all():
                raise ValueError("mean must lie within the bounds")
        self.sigma = float(sigma)
        self.generation = 0
        self._n = n
        self._sigma_0 = float(sigma)
        self._parameters = Parameters.default(n, self.population)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._covariance: Matrix = np.eye(n)
        self._axes: Matrix = np.eye(n)  # B of C = B D² Bᵀ
        self._lengths: Vector = np.ones(n)  # D's diagonal
        self._decomposed = 0  # the generation of B and D
        self._path_sigma: Vector = np.zeros(n)
        self._path_c: Vector = np.zeros(n)
        self._best: deque[float] = deque(maxlen=_HISTORY)  # best loss by generation
        self._median: deque[float] = deque(maxlen=_HISTORY)
        self._spread = math.inf  # of the last population's losses
        # Appendix B.2: C changes by (c_1 + c_µ) in a generation, decomposing it costs n³.
        lag = (self._parameters.c_1 + self._parameters.c_mu) * n * 10
        self._every = max(1, int(1 / lag))

    def ask(self) -> Matrix:
        """A population of λ points, (λ, n): x = m + σ B D z, z ~ N(0, I), eqs. (38) to (40).

        A point outside the bounds is drawn again, and after 100 draws moved onto them.
        """
        points = self._draw(self.population)
        if self.bounds is None:
            return points
        low, high = self.bounds.T
        for _ in range(_RESAMPLINGS):
            outside = ((points < low) | (points > high)).any(axis=1)
            if not outside.any():
                return points
            points[outside] = self._draw(int(outside.sum()))
        return np.clip(points, low, high)

    def _draw(self, count: int) -> Matrix:
        z = _orthogonal(self._rng.standard_normal((count, self._n)))
        return self.mean + self.sigma * (z * self._lengths) @ self._axes.T

    def tell(self, solutions: ArrayLike, losses: ArrayLike) -> None:
        """One step of the evolution.

        Args:
            solutions: (λ, n) the points that were evaluated.
            losses: (λ,) their losses; +inf for one that failed, which ranks last.

        Raises:
            ValueError: the shapes are not these, or a loss is NaN.
        """
        points, values = np.asarray(solutions, dtype=float), np.asarray(losses, dtype=float)
        if points.shape != (self.population, self._n) or values.shape != (self.population,):
            raise ValueError(f"expected {self.population} points of dimension {self._n}")
        if np.isnan(values).any():
            raise ValueError("a loss is NaN; tell inf for an evaluation that failed")
        order = np.argsort(values, kind="stable")
        values = values[order]
        steps = (points[order] - self.mean) / self.sigma  # y_{i:λ}
        self.generation += 1
        if values[0] < values[-1]:  # where all are alike, ranks would lead the mean by chance
            self._update(steps)
        self._note(values)

    def _update(self, steps: Matrix) -> None:
        s, n = self._parameters, self._n
        mu = self.population // 2
        step = s.weights[:mu] @ steps[:mu]  # (41)
        self.mean = self.mean + self.sigma * step  # (42) with c_m = 1

        # C^(-1/2) y for the mean step and for every point: B D⁻¹ Bᵀ y.
        whitened = (np.vstack([step, steps]) @ self._axes) / self._lengths
        self._path_sigma = (1 - s.c_sigma) * self._path_sigma + math.sqrt(
            s.c_sigma * (2 - s.c_sigma) * s.mu_eff
        ) * (self._axes @ whitened[0])  # (43)
        length = float(np.linalg.norm(self._path_sigma))

        # h_σ stalls p_c while σ is still growing fast, right after the start.
        settled = math.sqrt(1 - (1 - s.c_sigma) ** (2 * self.generation))
        h_sigma = length / settled < (1.4 + 2 / (n + 1)) * s.chi
        self._path_c = (1 - s.c_c) * self._path_c
        if h_sigma:
            self._path_c += math.sqrt(s.c_c * (2 - s.c_c) * s.mu_eff) * step  # (45)
        delta = 0.0 if h_sigma else s.c_c * (2 - s.c_c)

        # (46): a negative weight is scaled so that no single bad step can make C indefinite.
        squared = np.square(whitened[1:]).sum(axis=1)
        scaled = np.where(
            s.weights >= 0, s.weights, s.weights * n / np.maximum(squared, np.finfo(float).tiny)
        )
        keep = 1 + s.c_1 * delta - s.c_1 - s.c_mu * s.weights.sum()
        self._covariance = (  # (47)
            keep * self._covariance
            + s.c_1 * np.outer(self._path_c, self._path_c)
            + s.c_mu * (steps.T * scaled) @ steps
        )
        self.sigma *= math.exp(min(1.0, s.c_sigma / s.d_sigma * (length / s.chi - 1)))  # (44)
        if self.generation - self._decomposed >= self._every:
            self._decompose()

    def _decompose(self) -> None:
        """C = B D² Bᵀ, of C made exactly symmetric first (appendix B.2)."""
        self._decomposed = self.generation
        self._covariance = (self._covariance + self._covariance.T) / 2
        squares, self._axes = np.linalg.eigh(self._covariance)
        # Rounding may push the smallest below zero; ConditionCov then ends the run.
        floor = squares[-1] / (10 * _CONDITION)
        self._lengths = np.sqrt(np.maximum(squares, floor))

    def _note(self, values: Vector) -> None:
        """Remembers what the stopping rules look at, and widens a flat search (appendix B.3)."""
        self._best.append(float(values[0]))
        self._median.append(float(values[len(values) // 2]))
        self._spread = float(values[-1] - values[0]) if math.isfinite(values[-1]) else math.inf
        if values[0] == values[max(1, math.ceil(0.7 * len(values)) - 1)]:
            self.sigma *= math.exp(0.2 + self._parameters.c_sigma / self._parameters.d_sigma)

    def stop(self) -> dict[str, float]:
        """The stopping rules of appendix B.3 that hold, by name, with the number that made them.

        Empty while the search should go on.
        """
        if self.generation == 0:
            return {}
        met: dict[str, float] = {}
        spans = np.sqrt(np.diag(self._covariance))
        axis = self.generation % self._n
        along = 0.1 * self.sigma * self._lengths[axis] * self._axes[:, axis]
        if (self.mean + along == self.mean).all():
            met["NoEffectAxis"] = float(np.abs(along).max())
        if (self.mean + 0.2 * self.sigma * spans == self.mean).any():
            met["NoEffectCoord"] = float((self.sigma * spans).min())
        condition = float((self._lengths.max() / self._lengths.min()) ** 2)
        if condition > _CONDITION:
            met["ConditionCov"] = condition
        if self.sigma * self._lengths.max() > _TOLERANCE_UP * self._sigma_0:
            met["TolXUp"] = self.sigma
        widest = self.sigma * max(float(spans.max()), float(np.abs(self._path_c).max()))
        if widest < _TOLERANCE * self._sigma_0:
            met["TolX"] = widest
        reach = self._reach()
        if reach == 0:
            met["EqualFunValues"] = self._best[-1]
        if max(reach, self._spread) < _TOLERANCE:
            met["TolFun"] = reach
        if self._stagnates():
            met["Stagnation"] = self._median[-1]
        return met

    @property
    def width(self) -> float:
        """σ·√(tr C / n): the root mean square of the coordinates' standard deviations.

        σ alone is not that: what C shrinks by, σ may grow by, in one dimension without end.
        """
        return self.sigma * math.sqrt(float(np.trace(self._covariance)) / self._n)

    def movement(self) -> float:
        """How far losses still move: over the last 10 + ⌈30 n/λ⌉ generations' best, or within the
        last population if that is farther; +inf as long as there were fewer, or some failed."""
        return max(self._reach(), self._spread)

    def _reach(self) -> float:
        window = 10 + math.ceil(30 * self._n / self.population)
        recent = list(islice(reversed(self._best), window))
        if len(recent) < window or not all(map(math.isfinite, recent)):
            return math.inf
        return max(recent) - min(recent)

    def _stagnates(self) -> bool:
        """No progress in the newer 20 % of a window, in the best and in the median alike."""
        window = int(120 + 30 * self._n / self.population + 0.2 * self.generation)
        if self.generation < window:
            return False
        part = max(1, int(0.3 * min(window, _HISTORY)))
        for series in (self._best, self._median):
            values = list(series)[-window:]
            if np.median(values[-part:]) < np.median(values[:part]):
                return False
        return True

    def state(self) -> dict[str, Any]:
        """Everything that decides how the search goes on, in what JSON can hold without loss."""
        return {
            "mean": self.mean.tolist(),
            "sigma": self.sigma,
            "sigma_0": self._sigma_0,
            "population": self.population,
            "bounds": None if self.bounds is None else self.bounds.tolist(),
            "generation": self.generation,
            "covariance": self._covariance.tolist(),
            "axes": self._axes.tolist(),
            "lengths": self._lengths.tolist(),
            "decomposed": self._decomposed,
            "path_sigma": self._path_sigma.tolist(),
            "path_c": self._path_c.tolist(),
            "best": [known(value) for value in self._best],
            "median": [known(value) for value in self._median],
            "spread": known(self._spread),
            "random": self._rng.bit_generator.state,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The search that `state` was taken from; it goes on bit for bit as that one would."""
        search = cls(state["mean"], state["sigma_0"], state["population"])
        # Not told before, as rounding may have led the mean out of them.
        search.bounds = None if state["bounds"] is None else np.array(state["bounds"])
        search.sigma = state["sigma"]
        search.generation = state["generation"]
        search._covariance = np.array(state["covariance"])
        search._axes = np.array(state["axes"])
        search._lengths = np.array(state["lengths"])
        search._decomposed = state["decomposed"]
        search._path_sigma = np.array(state["path_sigma"])
        search._path_c = np.array(state["path_c"])
        search._best.extend(infinite(value) for value in state["best"])
        search._median.extend(infinite(value) for value in state["median"])
        search._spread = infinite(state["spread"])
        search._rng.bit_generator.state = state["random"]
        return search


def known(value: float) -> float | None:
    """As JSON holds it, which has no infinity."""
    return value if math.isfinite(value) else None


def infinite(value: float | None) -> float:
    """What `known` was given."""
    return math.inf if value is None else value


def _orthogonal(z: Matrix) -> Matrix:
    """Normal vectors turned at right angles to each other, in blocks of n, their lengths kept.

    Each alone is still N(0, I); together they cover the directions evenly, which saves a tenth of
    the evaluations (Wang, Emmerich & Bäck, "Mirrored orthogonal sampling", EvoStar 2014).
    """
    count, n = z.shape
    # The last block is filled up: a QR turns the first vectors without regard to those behind.
    blocks = np.zeros((-(-count // n), n, n))
    blocks.reshape(-1, n)[:count] = z
    q, r = np.linalg.qr(blocks.swapaxes(1, 2))
    # The sign that keeps the first vector, and the distribution, as they were.
    lengths = np.sign(r.diagonal(0, 1, 2)) * np.linalg.norm(blocks, axis=2)
    turned: Matrix = (q * lengths[:, None]).swapaxes(1, 2).reshape(-1, n)[:count]
    return turned
