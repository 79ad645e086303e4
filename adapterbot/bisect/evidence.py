"""What an outcome says of the side it came from: likelihoods with unknown parameters.

A model sees sums of statistics before and after a supposed change, and knows neither checkpoints
nor priors over them; that is `posterior`'s. Every array below has one row per hypothesis (K of
them), and "good" and "bad" are the two sides of the change.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_ROUNDS = 60


class Outcomes(Protocol):
    """How outcomes of one kind come about on either side of a change."""

    @property
    def width(self) -> int:
        """How many statistics an outcome has."""

    def statistics(self, outcome: Any) -> Floats:
        """The (width,) sufficient statistics of one outcome, or the sums of several.

        Raises:
            ValueError: this is no outcome of this kind.
        """

    def weigh(self, before: Floats, after: Floats) -> tuple[Floats, Prediction]:
        """Evidence for each hypothesis, up to a constant, and what it predicts.

        Args:
            before, after: (K, width) sums of the statistics on the good and on the bad side.

        Returns: log likelihood (K,), parameters integrated out, and the predictions.
        """


@runtime_checkable
class Graded(Outcomes, Protocol):
    """Outcomes that say how bad an index is, and so can tell a slow rise from one change."""

    def along(self, shares: Floats, sums: Floats) -> Floats:
        """Evidence for each of several shapes, up to a constant that is the same for all.

        Args:
            shares: (R, K) how far each index has gone from good (0) to bad (1) under each shape.
            sums: (K, width) of the statistics at each index.

        Returns: log likelihood (R,), parameters integrated out or at their likeliest.
        """


class Prediction(Protocol):
    """What each hypothesis expects of the next outcome, on either side."""

    def information(self, weights: Floats, at: NDArray[np.intp], size: float) -> Floats:
        """Expected bits about the change point of asking each index.

        Args:
            weights: (C,) posterior of the change points 0…n.
            at: (C,) which hypothesis each change point belongs to.
            size: how many outcomes are asked for at once.

        Returns: (C − 1,) bits; index i is on the bad side of every change point ≤ i.
        """

    def looks_bad(self, size: float) -> tuple[Floats, Floats]:
        """The outcome boiled down to a coin: its chance of "bad" on either side, (K,) each."""


def entropy(p: Floats) -> Floats:
    """Bits of a coin that shows heads with chance p."""
    q = np.clip(p, 1e-300, 1.0)
    r = np.clip(1.0 - p, 1e-300, 1.0)
    return -(p * np.log2(q) + (1.0 - p) * np.log2(r))


def split(weights: Floats, good: Floats, bad: Floats) -> Floats:
    """Σ of `bad` over the change points ≤ i and of `good` over those > i, for each index i."""
    below = np.cumsum((weights * bad)[:-1])
    above = np.cumsum((weights * good)[:0:-1])[::-1]
    return below + above


def mixed_shares(shares: Floats, counts: Floats, good: Floats, bad: Floats) -> Floats:
    """Log evidence of categories that come from two populations, `shares` of them from the second;
    in the first, the first category is as frequent as the last.

    The two populations' proportions are unknown, with Dirichlet priors `good` and `bad` of (C,)
    pseudo-counts, and are put where they are likeliest (by expectation and maximisation; Dempster,
    Laird and Rubin 1977).

    Args:
        shares: (R, K), a row for each shape.
        counts: (K, C) of each category.

    Returns: (R,).
    """
    first = np.broadcast_to(good / good.sum(), (len(shares), len(good)))
    second = np.broadcast_to(bad / bad.sum(), first.shape)
    for _ in range(_ROUNDS):
        of_first = (1.0 - shares)[..., None] * first[:, None]
        of_second = shares[..., None] * second[:, None]
        part = counts * of_second / np.maximum(of_first + of_second, 1e-300)
        first = (counts - part).sum(axis=1) + good
        first = 0.5 * (first + first[:, ::-1])
        second = part.sum(axis=1) + bad
        first = first / first.sum(axis=1, keepdims=True)
        second = second / second.sum(axis=1, keepdims=True)
    mixed = (1.0 - shares)[..., None] * first[:, None] + shares[..., None] * second[:, None]
    likelihood = (counts * np.log(np.maximum(mixed, 1e-300))).sum(axis=(1, 2))
    return np.asarray(likelihood + np.log(first) @ good + np.log(second) @ bad)
