"""Arrays as they come in, checked and cut to the pairs that are complete."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.errors import InputError, first_line
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
    clusters: Sequence[Hashable] | ArrayLike | None,
    *,
    dimensions: int = 1,
) -> Aligned:
    """Pair two arrays row by row; a row with a value that is not finite is not complete.

    Raises:
        InputError: the arrays hold something else than numbers, or do not pair up; or a sample has
            no label.
    """
    before = _array("baseline", baseline, dimensions)
    after = _array("candidate", candidate, dimensions)
    if len(before) != len(after):
        raise InputError(
            f"{len(before)} baseline scores and {len(after)} candidate scores do not pair up"
        )
    if before.shape != after.shape:
        raise InputError("baseline and candidate have different numbers of statistics")
    given = None if clusters is None else _labels(clusters)
    if given is not None and len(given) != len(before):
        raise InputError(f"{len(given)} cluster labels for {len(before)} samples")
    complete = (np.abs(before) < LARGEST) & (np.abs(after) < LARGEST)
    rows = np.asarray(complete if dimensions == 1 else complete.all(axis=1))
    labels = None if given is None else [c for c, kept in zip(given, rows, strict=True) if kept]
    return Aligned(before[rows], after[rows], _numbered(labels), int((~rows).sum()))


def exact_mean(values: FloatArray) -> float | None:
    """Correctly rounded, so that no order of summation shows; None of nothing."""
    return math.fsum(values) / len(values) if len(values) else None


def _array(side: str, scores: Any, dimensions: int) -> FloatArray:
    # A tensor may be on a GPU, in bfloat16 or wait for a gradient; a masked array would hand out
    # what it masks.
    if hasattr(scores, "requires_grad") or hasattr(scores, "filled"):
        scores = scores.tolist()
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"is no array of numbers: {first_line(error)}",
            field=side,
            fix="pass one number a sample, NaN where there is none",
        ) from error
    if array.size == 0 and dimensions == 2:
        return np.empty((0, 1))
    if array.ndim != dimensions:
        raise InputError(f"scores have {array.ndim} dimensions instead of {dimensions}")
    return array


def _labels(clusters: Any) -> list[Hashable]:
    """As Python's own objects: two elements of a tensor never equal each other as keys."""
    labels = clusters.tolist() if hasattr(clusters, "tolist") else list(clusters)
    try:
        labels = [label.item() if hasattr(label, "item") else label for label in labels]
        missing = sum(map(_is_none, labels))
        hash(tuple(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"hold no labels: {first_line(error)}",
            field="clusters",
            fix="pass a string or a number a sample",
        ) from error
    if missing:
        raise InputError(
            f"lack the label of {missing} of {len(labels)} samples",
            field="clusters",
            fix="give a sample that belongs to no other one a label of its own",
        )
    return labels


def _is_none(label: Any) -> bool:
    try:
        return label is None or bool(label != label)  # NaN equals nothing, not even itself
    except TypeError:  # what pandas has for it is neither equal nor unequal
        return True


def _numbered(labels: Sequence[Hashable] | None) -> IntArray | None:
    """Which number a label gets does not matter, only which pairs share it."""
    if labels is None:
        return None
    numbers: dict[Hashable, int] = {}
    found = np.array([numbers.setdefault(c, len(numbers)) for c in labels], dtype=np.int64)
    return None if len(numbers) == len(found) else found
