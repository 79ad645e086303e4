"""CMA-ES started anew when it has stopped, with larger and smaller populations.

IPOP doubles the population at every restart (Auger & Hansen, CEC 2005). BIPOP alternates that with
cheap runs of small populations and steps, so that both get the same number of evaluations (Hansen,
GECCO 2009 workshop). A run that can no longer overtake the best of an earlier one is not finished.
Ask/tell, as the search itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.merge.cmaes import CMAES, Matrix, infinite, known
from adapterbot.merge.parameters import Vector, default_population

Regime = Literal["ipop", "bipop"]

# A run that ends where an earlier one did is told from a better one this far down its descent.
_SAME = 1e-6


class Restarts:
    """A search that does not end: where CMA-ES stops, it begins again elsewhere.

    Attributes:
        search: the run that is going on.
        restarts: how many times it was begun again.
        best: the best point that was told, None before the first.
        best_loss: its loss.
        centre: the mean of the run that found it, as that run stands.
    """

    def __init__(
        self,
        mean: ArrayLike,
        sigma: float,
        population: int | None = None,
        bounds: ArrayLike | None = None,
        seed: int | None = None,
        regime: Regime = "bipop",
    ) -> None:
        """As `CMAES`; the first run starts at `mean`, later ones at random.

        With bounds, later runs start uniformly within them; without, at N(mean, (2σ)²I).
        """
        self._mean: Vector = np.array(mean, dtype=float)
        self._sigma = float(sigma)
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._regime = regime
        self._bounds = None if bounds is None else np.array(bounds, dtype=float)
        if population is None:
            population = default_population(self._mean.size)
        self._population = population
        self._doublings = 0
        self._small = False  # whether the run going on is one of the small ones
        self._spent = {True: 0, False: 0}  # evaluations by regime, the first run not counted
        self.restarts = 0
        self.best: Vector | None = None
        self.best_loss = math.inf
        self.centre: Vector = self._mean.copy()
        self._leading = True  # whether the run going on is the one that found the best
        self._run_first = self._run_best = math.inf  # the best loss it began with, and so far
        self.search = CMAES(
            self._mean, sigma, self._population, self._bounds, int(self._rng.integers(2**63))
        )

    def ask(self) -> Matrix:
        """The next population, of a new run where the last one has stopped."""
        if self.search.stop() or self._hopeless():
            self._restart()
        return self.search.ask()

    def tell(self, solutions: ArrayLike, losses: ArrayLike) -> None:
        """As `CMAES.tell`."""
        self.search.tell(solutions, losses)
        if self.restarts:
            self._spent[self._small] += self.search.population
        values = np.asarray(losses, dtype=float)
        at = int(np.argmin(values))
        self._run_best = min(self._run_best, float(values[at]))
        if not math.isfinite(self._run_first):
            self._run_first = self._run_best
        if values[at] < self.best_loss:
            self.best = np.array(solutions, dtype=float)[at]
            self.best_loss = float(values[at])
            self._leading = True
        if self._leading:
            self.centre = self.search.mean.copy()

    def _hopeless(self) -> bool:
        """Whether the run going on will not overtake the best that an earlier one found.

        CMA-ES converges log-linearly, so that what is left to gain is less than what it gained of
        late. Most of the evaluations of a run that is caught in a worse optimum would go into
        that optimum's digits.
        """
        if self._leading:
            return False
        behind = self._run_best - self.best_loss
        return self.search.movement() < max(behind, _SAME * (self._run_first - self.best_loss))

    def _restart(self) -> None:
        self.restarts += 1
        self._leading = False
        self._run_first = self._run_best = math.inf
        self._small = self._regime == "bipop" and self._spent[True] < self._spent[False]
        population, sigma = self._population, self._sigma
        if self._small:
            large = self._population * 2**self._doublings
            draw = self._rng.random()
            population = max(2, int(population * (0.5 * large / population) ** (draw**2)))
            sigma *= 10 ** (-2 * self._rng.random())
        else:
            self._doublings += 1
            population *= 2**self._doublings
        if self._bounds is not None:
            start = self._rng.uniform(self._bounds[:, 0], self._bounds[:, 1])
        else:
            start = self._mean + 2 * self._sigma * self._rng.standard_normal(self._mean.size)
        self.search = CMAES(start, sigma, population, self._bounds, int(self._rng.integers(2**63)))

    def state(self) -> dict[str, Any]:
        """As `CMAES.state`, of the run going on and of what decides the next ones."""
        return {
            "search": self.search.state(),
            "mean": self._mean.tolist(),
            "sigma": self._sigma,
            "population": self._population,
            "bounds": None if self._bounds is None else self._bounds.tolist(),
            "regime": self._regime,
            "doublings": self._doublings,
            "small": self._small,
            "spent": [self._spent[False], self._spent[True]],
            "restarts": self.restarts,
            "best": None if self.best is None else self.best.tolist(),
            "best_loss": known(self.best_loss),
            "centre": self.centre.tolist(),
            "leading": self._leading,
            "run_first": known(self._run_first),
            "run_best": known(self._run_best),
            "random": self._rng.bit_generator.state,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The search that `state` was taken from."""
        found = cls(
            state["mean"], state["sigma"], state["population"], state["bounds"],
            regime=state["regime"],
        )  # fmt: skip
        found.search = CMAES.from_state(state["search"])
        found._doublings = state["doublings"]
        found._small = state["small"]
        found._spent = {False: state["spent"][0], True: state["spent"][1]}
        found.restarts = state["restarts"]
        found.best = None if state["best"] is None else np.array(state["best"])
        found.best_loss = infinite(state["best_loss"])
        found.centre = np.array(state["centre"])
        found._leading = state["leading"]
        found._run_first = infinite(state["run_first"])
        found._run_best = infinite(state["run_best"])
        found._rng.bit_generator.state = state["random"]
        return found
