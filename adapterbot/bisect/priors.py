"""How likely each change point is before anything was probed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterbot.bisect.evidence import Floats

# How likely it is beforehand that all are bad, and that none is. The latter is an even chance: to
# be 95 % sure of a break takes evidence of nineteen to one then, which noise alone brings about in
# one search of nineteen at most, however few checkpoints there are (Ville's inequality).
ENDS = (0.1, 0.5)
# Share of the mass between them that is spread evenly: a small change can break much.
_EVEN = 0.25


def uniform(n: int, *, ends: tuple[float, float] = ENDS) -> Floats:
    """A prior (n + 1,) that prefers no checkpoint; `ends`: the mass on "all are bad" and on "none
    is"."""
    return _between(np.full(n - 1, 1.0 / max(n - 1, 1)), ends)


def by_change(sizes: Sequence[float]) -> Floats:
    """A prior by how much changed between neighbours, in weights or in data rows.

    Args:
        sizes: (n − 1,) size of the change from each checkpoint to the next, in any unit.

    Returns: (n + 1,) weights.

    Raises:
        ValueError: a size is negative or no number.
    """
    amounts = np.asarray(sizes, dtype=np.float64)
    if not np.isfinite(amounts).all() or (amounts < 0).any():
        raise ValueError("a size of change is negative or no number")
    total = amounts.sum()
    even = np.full(len(amounts), 1.0 / max(len(amounts), 1))
    inner = even if total <= 0 else _EVEN * even + (1.0 - _EVEN) * amounts / total
    return _between(inner, ENDS)


def _between(inner: Floats, ends: tuple[float, float]) -> Floats:
    every, none = ends
    weights = np.concatenate([[every], (1.0 - every - none) * inner, [none]])
    return np.asarray(weights / weights.sum())
