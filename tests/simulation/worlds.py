"""Worlds in which the truth is known: paired scores of two adapters, with a harm that we chose.

Higher scores are better everywhere; `harm` is the drop of the true mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL = os.environ.get("ADAPTERBOT_SIMULATIONS") == "full"
"""`ADAPTERBOT_SIMULATIONS=full pytest tests/simulation` draws some ten times as many worlds."""

Scores = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], tuple[Scores, Scores]]


@dataclass(frozen=True)
class World:
    """`draw(rng, n, harm)` gives baseline and candidate scores of n samples."""

    name: str
    draw: Draw
    cluster_size: int = 1
    unit: str = "number"

    def clusters(self, n: int) -> Sequence[Hashable] | None:
        return None if self.cluster_size == 1 else [i // self.cluster_size for i in range(n)]

    def __str__(self) -> str:
        return self.name


def _binary(discordant: float) -> Draw:
    def draw(rng: np.random.Generator, n: int, harm: float) -> tuple[Scores, Scores]:
        differs = rng.random(n) < max(discordant, harm)
        worse = rng.random(n) < (1 + harm / max(discordant, harm)) / 2
        same = (rng.random(n) < 0.8).astype(float)
        baseline = np.where(differs, worse.astype(float), same)
        return baseline, np.where(differs, 1 - baseline, same)

    return draw


def _shifted(noise: Callable[[np.random.Generator, int], Scores]) -> Draw:
    def draw(rng: np.random.Generator, n: int, harm: float) -> tuple[Scores, Scores]:
        baseline = rng.normal(size=n)
        return baseline, baseline + noise(rng, n) - harm

    return draw


def _clustered(size: int) -> Draw:
    """Half of the variance of a difference is shared by its cluster."""

    def draw(rng: np.random.Generator, n: int, harm: float) -> tuple[Scores, Scores]:
        shared = np.repeat(rng.normal(size=-(-n // size)), size)[:n]
        baseline = rng.normal(size=n)
        return baseline, baseline + np.sqrt(0.5) * (shared + rng.normal(size=n)) - harm

    return draw


def _clustered_binary(size: int) -> Draw:
    """A cluster has its own chance of being answered differently, and in which direction."""

    def draw(rng: np.random.Generator, n: int, harm: float) -> tuple[Scores, Scores]:
        groups = -(-n // size)
        differs = rng.random(n) < np.repeat(rng.beta(1, 3, groups), size)[:n]
        leaning = np.repeat(rng.beta(1, 1, groups), size)[:n]
        worse = rng.random(n) < leaning + (1 - leaning) * 4 * harm
        same = (rng.random(n) < 0.8).astype(float)
        baseline = np.where(differs, worse.astype(float), same)
        return baseline, np.where(differs, 1 - baseline, same)

    return draw


def _sparse(rng: np.random.Generator, n: int) -> Scores:
    """Most answers are word for word the same; the others gain or lose some overlap."""
    return np.where(rng.random(n) < 0.15, rng.uniform(-1, 1, n), 0.0)


def _graded(sizes: tuple[float, ...], shares: tuple[float, ...]) -> Draw:
    """Grades of few levels: these sizes of a difference, with these shares of the samples. Where a
    harm is larger than what differs, more differ, all for the worse."""
    differ, typical = sum(shares), float(np.dot(sizes, shares)) / sum(shares)

    def draw(rng: np.random.Generator, n: int, harm: float) -> tuple[Scores, Scores]:
        share = max(differ, harm / typical)
        size = rng.choice(sizes, n, p=np.array(shares) / differ)
        worse = np.where(rng.random(n) < (1 + harm / (share * typical)) / 2, 1.0, -1.0)
        change = np.where(rng.random(n) < share, size * worse, 0.0)
        baseline = np.maximum(change, 0.0)
        return baseline, baseline - change

    return draw


BINARY = World("binary", _binary(0.13), unit="fraction")
GAUSSIAN = World("gaussian", _shifted(lambda rng, n: rng.normal(size=n)))
HEAVY = World("heavy-tailed", _shifted(lambda rng, n: rng.standard_t(3, size=n)))
SKEWED = World("skewed", _shifted(lambda rng, n: rng.exponential(size=n) - 1))
SPARSE = World("sparse", _shifted(_sparse))
GRADED = World("graded", _graded((0.25, 0.5), (0.4, 0.1)), unit="fraction")
RARELY_GRADED = World("rarely graded", _graded((0.25, 0.5), (0.08, 0.02)), unit="fraction")
HALVES = World("halves", _graded((0.5,), (0.1,)), unit="fraction")
HARDLY = World("hardly ever", _graded((1.0,), (0.02,)), unit="fraction")
CLUSTERED = World("clustered", _clustered(3), cluster_size=3)
CLUSTERED_BINARY = World("clustered-binary", _clustered_binary(3), cluster_size=3, unit="fraction")
