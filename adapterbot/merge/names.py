"""What the command line may ask of a merge, by name. No numpy: help is shown without it."""

from __future__ import annotations

from enum import StrEnum


class Strategy(StrEnum):
    """How adapters are put together; only CMAES searches for their weights."""

    CMAES = "cmaes"
    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE_LINEAR = "dare-linear"
    DARE_TIES = "dare-ties"
    MAGNITUDE_PRUNE = "magnitude-prune"
    TASK_ARITHMETIC = "task-arithmetic"
    SLERP = "slerp"


SPARSE = frozenset(
    {Strategy.TIES, Strategy.DARE_LINEAR, Strategy.DARE_TIES, Strategy.MAGNITUDE_PRUNE}
)
# Those that draw random numbers.
DRAWING = frozenset({Strategy.CMAES, Strategy.DARE_LINEAR, Strategy.DARE_TIES})


class Search(StrEnum):
    """What may differ between candidates."""

    WEIGHTS = "weights"  # one weight per adapter, on the simplex
    PER_LAYER = "per-layer"  # the same for each group of layers
    SIGNED = "signed"  # one weight of any sign per adapter
