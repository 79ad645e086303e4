"""Arrays as they come in, checked and cut to the pairs that are complete."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.errors import InputError
from adapterbot.stats.distributions import FloatArray, IntArray

LARGEST = 1e150
"""Scores from here on count as not finite: their squares are not."""


class Aligned(NamedTuple):
    """Complete pairs: shape (n,), or (n, k) for statistics."""

    baseline: FloatArray
    candidate: FloatArray
    clusters: IntArray | None  # 0…G − 1 per pair; None where no two pairs share one
    missing: int  # pairs that were not complete

    @property
    def units(self) -> int:
        """Independent ones: clusters, or pairs on their own."""
        if self.clusters is None:
            return len(self.baseline)
        return int(self.clusters.max()) + 1


def align(
    baseline: ArrayLike,
    candidate: ArrayLike,
    clusters: Sequence[Hashable] | None,
    *,
    dimensions: int = 1,
) -> Aligned:
    """Pair two arrays row by row; a row with a value that is not finite is not complete.

    Raises:
        InputError: the arrays do not pair up.
    """
    before, after = (_array(side, dimensions) for side in (baseline, candidate))
    if len(before) != len(after):
        raise InputError(
            f"{len(before)} baseline scores and {len(after)} candidate scores do not pair up"
        )
    if before.shape != after.shape:
        raise InputError("baseline and candidate have different numbers of statistics")
    if clusters is not None and len(clusters) != len(before):
        raise InputError(f"{len(clusters)} cluster labels for {len(before)} samples")
    complete = (np.abs(before) < LARGEST) & (np.abs(after) < LARGEST)
    rows = np.asarray(complete if dimensions == 1 else complete.all(axis=1))
    labels = (
        None if clusters is None else [c for c, kept in zip(clusters, rows, strict=True) if kept]
    )
    return Aligned(before[rows], after[rows], _numbered(labels), int((~rows).sum()))


def exact_mean(values: FloatArray) -> float | None:
    """Correctly rounded, so that no order of summation shows; None of nothing."""
    return math.fsum(values) / len(values) if len(values) else None


def _array(scores: ArrayLike, dimensions: int) -> FloatArray:
    array = np.asarray(scores, dtype=np.float64)
    if array.size == 0 and dimensions == 2:
        return np.empty((0, 1))
    if array.ndim != dimensions:
        raise InputError(f"scores have {array.ndim} dimensions instead of {dimensions}")
    return array


def _numbered(labels: Sequence[Hashable] | None) -> IntArray | None:
    """Which number a label gets does not matter, only which pairs share it."""
    if labels is None:
        return None
    numbers: dict[Hashable, int] = {}
    found = np.array([numbers.setdefault(c, len(numbers)) for c in labels], dtype=np.int64)
    return None if len(numbers) == len(found) else found
