"""What outcomes of one kind add up to, index by index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bisect.evidence import Floats, Outcomes, Prediction


@dataclass
class Seen:
    """Sums of one kind's outcomes by index; −1 and n stand for ends outside the history."""

    model: Outcomes
    room: float
    at: list[int] = field(default_factory=list)
    sums: list[Floats] = field(default_factory=list)
    counts: dict[int, float] = field(default_factory=dict)

    def add(self, index: int, outcome: Any) -> None:
        """What a probe of an index brought: one outcome, or several."""
        statistics = self.model.statistics(outcome)
        self.counts[index] = self.counts.get(index, 0.0) + np.asarray(outcome).size
        place = int(np.searchsorted(self.at, index))
        if place < len(self.at) and self.at[place] == index:
            self.sums[place] = self.sums[place] + statistics
        else:
            self.at.insert(place, index)
            self.sums.insert(place, statistics)

    def weigh(self) -> tuple[Floats, Prediction]:
        """Hypothesis k: the change lies between the k-th and the (k+1)-th index that was asked."""
        sums = np.asarray(self.sums, np.float64).reshape(-1, self.model.width)
        before = np.concatenate([np.zeros((1, self.model.width)), np.cumsum(sums, axis=0)])
        return self.model.weigh(before, before[-1] - before)

    def sides(self, change: int) -> tuple[Floats, Floats]:
        """The sums before a change point and from it on, (width,) each."""
        sums = np.asarray(self.sums, np.float64).reshape(-1, self.model.width)
        bad = np.asarray(self.at, np.intp) >= change
        return sums[~bad].sum(axis=0), sums[bad].sum(axis=0)

    def hypothesis_of(self, n: int) -> NDArray[np.intp]:
        """Which hypothesis each change point 0…n belongs to."""
        bounds = np.array([-1, *self.at, n])
        return np.repeat(np.arange(len(self.at) + 1), np.diff(bounds))
