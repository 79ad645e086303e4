"""Searches for merge weights on worlds whose best blend is known; prints JSON.

Run by `bench/merge.py` with the Python of an environment that holds pycma. A world scores a blend
by 60 right-or-wrong items; the regret is what the chosen blend truly lacks of the best one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import cma
import numpy as np

from adapterbot.merge.driver import Driver, Plan
from adapterbot.merge.items import items_of
from adapterbot.merge.names import Search
from adapterbot.merge.space import Space

EVALUATIONS, ITEMS, BEST = 160, 60, 0.9
KINDS = ("interior", "sparse", "vertex")
ADAPTERS = (4, 8, 16)
# No world from here on was looked at when the constants of ours were chosen.
FIRST_SEED = 10_000


class World:
    """A quadratic bowl over the simplex, and the items that judge a point of it."""

    def __init__(self, kind: str, n: int, seed: int) -> None:
        rng = np.random.default_rng([n, seed, KINDS.index(kind)])
        self.best = np.zeros(n)
        if kind == "interior":
            self.best = rng.dirichlet(np.full(n, 5.0))
        elif kind == "sparse":
            used = rng.choice(n, 2 if n == 4 else 3, replace=False)
            self.best[used] = rng.dirichlet(np.full(len(used), 3.0))
        else:
            self.best[rng.integers(n)] = 1.0
        half = rng.standard_normal((n, n))
        self.curvature = half @ half.T / n + 0.3 * np.eye(n)
        # The first half judges while searching; the second half is nobody's to see.
        self.thresholds = rng.random(2 * ITEMS)

    def truth(self, weights: Any) -> Any:
        away = weights - self.best
        return np.clip(BEST - 1.2 * np.einsum("...i,ij,...j", away, self.curvature, away), 0, 1)

    def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
        return [
            (self.thresholds[list(items)] < float(self.truth(weights[0]))).astype(float)
            for weights in candidates
        ]


def ours(world: World, n: int, seed: int) -> float:
    """The driver as it is, starting points and the final centre among its evaluations."""
    population = 8 if n < 16 else 12
    plan = Plan(
        tuple(map(str, range(n))),
        population,
        (EVALUATIONS - n - 2) // population,
        budget=1e9,
        seed=seed,
        racing=False,
    )
    driver = Driver(
        Space(n, 1, Search.WEIGHTS), plan, items_of([[()] * 2 * ITEMS], [1.0]), world,
        clock=lambda: 0.0,
    )  # fmt: skip
    return BEST - float(world.truth(np.array(driver.run().winner.weights[0])))


def selection(seed: int) -> Any:
    """The items that our driver chooses on: the others get the same."""
    return items_of([[()] * 2 * ITEMS], [1.0]).split(np.random.default_rng(seed))[0]


def pycma(world: World, n: int, seed: int) -> float:
    """pycma over the usual logits, its own recommendation taken (the mean it ends with)."""
    items = selection(seed)
    search = cma.CMAEvolutionStrategy(np.zeros(n - 1), 1.0, {"verbose": -9, "seed": seed + 1})
    spent = 0
    while spent + search.popsize <= EVALUATIONS and not search.stop():
        points = search.ask()
        blends = [softmax(point) for point in points]
        search.tell(points, [-row.mean() for row in world.scores([b[None] for b in blends], items)])
        spent += len(points)
    return BEST - float(world.truth(softmax(search.result.xfavorite)))


def dirichlet(world: World, n: int, seed: int) -> float:
    """The best-scored of as many uniform draws from the simplex."""
    blends = np.random.default_rng(seed).dirichlet(np.ones(n), EVALUATIONS)
    rows = world.scores([blend[None] for blend in blends], selection(seed))
    return BEST - float(world.truth(blends[int(np.argmax([row.mean() for row in rows]))]))


def softmax(logits: Any) -> Any:
    powers = np.exp(np.append(logits, 0.0) - max(0.0, np.max(logits)))
    return powers / powers.sum()


def main() -> None:
    """Every kind of world and number of adapters, the three in turn."""
    seeds = int(sys.argv[1])
    rows = []
    for kind in KINDS:
        for n in ADAPTERS:
            found: dict[str, list[float]] = {"ours": [], "pycma": [], "dirichlet": []}
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                world = World(kind, n, seed)
                found["ours"].append(ours(world, n, seed))
                found["pycma"].append(pycma(world, n, seed))
                found["dirichlet"].append(dirichlet(world, n, seed))
            rows.append({"kind": kind, "n": n, "regret": found})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
