"""What a probe costs, measured: a checkpoint that was probed before is on this machine and perhaps
loaded, a new one may still have to be fetched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np

from adapterbot.bisect.evidence import Floats

# How much dearer a new checkpoint is as long as nothing else was measured.
NEW = 1.03


class Costs:
    """Seconds of the probes that were made, and what they let expect of the next ones."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._again: defaultdict[int, list[float]] = defaultdict(list)
        self._first: defaultdict[int, list[float]] = defaultdict(list)

    def book(self, index: int, kind: int, seconds: float) -> None:
        """One more probe, as long as it took."""
        (self._again if index in self._known else self._first)[kind].append(seconds)
        self._known.add(index)

    def expected(self, n: int, kinds: int) -> list[Floats]:
        """(n,) seconds of a probe of each kind by index, in medians; by ratio alone where nothing
        was measured."""
        everything = [s for times in (self._again, self._first) for t in times.values() for s in t]
        usual = max(median(everything), 1e-6) if everything else 1.0
        known = np.array(sorted(index for index in self._known if 0 <= index < n), np.intp)
        costs = []
        for kind in range(kinds):
            again, first = self._typical(self._again[kind]), self._typical(self._first[kind])
            dear = first or (again or usual) * NEW
            cheap = min(again or dear / NEW, dear)
            seconds = np.full(n, dear)
            seconds[known] = cheap
            costs.append(seconds)
        return costs

    @staticmethod
    def _typical(seconds: Sequence[float]) -> float | None:
        """The median of so many that the first, which warms everything up, does not decide."""
        return max(median(seconds), 1e-6) if len(seconds) >= 3 else None
