"""How likely each change point is before anything was probed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterbot.bisect.evidence import Floats

# How likely it is beforehand that none is bad, and that all are.
END_MASS = 0.1
# Share of the mass between them that is spread evenly: a small change can break much.
_EVEN = 0.25


def uniform(n: int, *, ends: float = END_MASS) -> Floats:
    """A prior (n + 1,) that prefers no checkpoint; `ends` is the mass on "all" and on "none"."""
    weights = np.full(n + 1, (1.0 - 2.0 * ends) / max(n - 1, 1))
    weights[[0, n]] = ends
    return np.asarray(weights / weights.sum())


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
    return np.concatenate([[END_MASS], (1.0 - 2.0 * END_MASS) * inner, [END_MASS]])
