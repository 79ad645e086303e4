"""How likely each change point is before anything was probed."""

from __future__ import annotations

import numpy as np

from adapterbot.bisect.evidence import Floats

# How likely it is beforehand that none is bad, and that all are.
END_MASS = 0.1


def uniform(n: int, *, ends: float = END_MASS) -> Floats:
    """A prior (n + 1,) that prefers no checkpoint; `ends` is the mass on "all" and on "none"."""
    weights = np.full(n + 1, (1.0 - 2.0 * ends) / max(n - 1, 1))
    weights[[0, n]] = ends
    return np.asarray(weights / weights.sum())
