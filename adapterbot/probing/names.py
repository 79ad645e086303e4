"""What a search is asked for by name."""

from __future__ import annotations

from enum import StrEnum


class Prior(StrEnum):
    """What the odds of a checkpoint follow before it is probed."""

    UNIFORM = "uniform"
    WEIGHTS = "weights"
    DATA = "data"
