"""What is searched: vectors of real numbers that stand for weights of adapters. numpy only.

A candidate's weights are a matrix (groups, adapters): one row for the whole adapter, or one for
each group of layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adapterbot.merge.names import Search

FloatArray = NDArray[np.float64]
Weights = NDArray[np.float64]

# Softmax reaches a vertex at infinity. A weight this small stands for none.
_LEAST = 1e-5
# A lead of so much in the score makes an adapter e times as heavy in the first guess …
_LEAD = 0.1
# … of which this share is kept uniform, so that every direction stays open.
_OPEN = 0.4


@dataclass(frozen=True)
class Space:
    """The map between points of ℝⁿ and weights.

    Attributes:
        adapters: N, at least 2.
        groups: of layers; 1 but for `Search.PER_LAYER`.
        search: which of the three.
    """

    adapters: int
    groups: int
    search: Search

    @property
    def dimension(self) -> int:
        """n: N − 1 logits for each group, or N plain weights."""
        if self.search is Search.SIGNED:
            return self.adapters
        return self.groups * (self.adapters - 1)

    @property
    def sigma(self) -> float:
        """The first step size."""
        return 0.25 if self.search is Search.SIGNED else 0.35

    @cached_property
    def _basis(self) -> FloatArray:
        """(N − 1, N): orthogonal directions in the plane of logits that sum to 0.

        With one logit fixed at 0 instead, equal steps would favour that adapter. The length √2
        gives the difference of two logits the variance that two free logits would have.
        """
        n = self.adapters
        plane = np.hstack([np.ones((n, 1)), np.eye(n)[:, : n - 1]])
        return math.sqrt(2) * np.linalg.qr(plane)[0][:, 1:].T

    def weights(self, point: FloatArray) -> Weights:
        """(n,) → (groups, N); on the simplex by softmax of the logits."""
        if self.search is Search.SIGNED:
            return point[None, :].copy()
        logits = point.reshape(self.groups, self.adapters - 1) @ self._basis
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def point(self, weights: Weights) -> FloatArray:
        """(groups, N) → (n,), the inverse of `weights` as far as a softmax reaches."""
        if self.search is Search.SIGNED:
            return np.array(weights[0], dtype=float)
        logits = np.log(np.maximum(weights, _LEAST))
        return np.array(((logits - logits.mean(axis=1, keepdims=True)) @ self._basis.T / 2).ravel())

    def uniform(self) -> Weights:
        """Every adapter alike."""
        return np.full((self.groups, self.adapters), 1 / self.adapters)

    def single(self, adapter: int) -> Weights:
        """One adapter alone: a vertex of the simplex."""
        return np.tile(np.eye(self.adapters)[adapter], (self.groups, 1))

    def first_guess(self, scores: FloatArray) -> Weights:
        """Where to start, from the scores of the single adapters (−inf for one that failed)."""
        share = np.exp((scores - scores.max()) / _LEAD)
        mixed = (1 - _OPEN) * share / share.sum() + _OPEN / self.adapters
        return np.tile(mixed, (self.groups, 1))
