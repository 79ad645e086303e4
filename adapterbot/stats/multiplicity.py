"""Many metrics, one verdict: Holm for what gates, Benjamini–Hochberg for what informs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """What Holm leaves for one hypothesis."""

    adjusted: float  # p, to be held against α
    level: float  # the level at which its own bound decides


def holm(p_values: Sequence[float], alpha: float) -> list[Step]:
    """Holm's step-down procedure (Scand. J. Stat. 6, 1979), in the order of `p_values`.

    The i-th smallest of m p-values is held against α / (m − i + 1), until one fails; all from
    there on share the level at which it failed (the compatible one-sided bounds of Strassburger
    and Bretz, Stat. Med. 27, 2008). So do equal ones, or the order of metrics would show.
    """
    count = len(p_values)
    steps: dict[int, Step] = {}
    adjusted, failed_at = 0.0, None
    left, last = count, -1.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        if p_values[index] != last:
            left, last = count - rank, p_values[index]
        adjusted = min(1.0, max(adjusted, left * p_values[index]))
        if failed_at is None and adjusted > alpha:
            failed_at = alpha / left
        steps[index] = Step(adjusted, failed_at if failed_at is not None else alpha / left)
    return [steps[index] for index in range(count)]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """q-values (J. R. Stat. Soc. B 57, 1995), in the order of `p_values`."""
    count = len(p_values)
    found = [1.0] * count
    smallest = 1.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i], reverse=True)):
        smallest = min(smallest, p_values[index] * count / (count - rank))
        found[index] = smallest
    return found
