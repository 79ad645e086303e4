"""Classic bisection, ask/tell: it knows nothing of checkpoints, models or clocks.

Endpoints first, then midpoints: at most 2 + ⌈log₂(n − 1)⌉ probes for n checkpoints, fewer when an
endpoint is known already. A skipped index is stepped around, nearest untried neighbour first, as
`git bisect skip` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Answer(StrEnum):
    """What a probe said."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass
class Bisection:
    """The search for the first bad of `n` checkpoints, oldest first.

    Invariant: every index ≤ `good` is good and every index ≥ `bad` is bad; −1 and n stand for
    "nothing known yet".

    Raises:
        ValueError: n < 1, or an answer that contradicts the one before it.
    """

    n: int
    good: int = field(default=-1, init=False)
    bad: int = field(init=False)
    skipped: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("there is nothing to bisect")
        self.bad = self.n

    @property
    def open(self) -> list[int]:
        """Indices that could still be asked, in order."""
        return [i for i in range(self.good + 1, self.bad) if i not in self.skipped]

    def ask(self) -> int | None:
        """The next index to probe, or None when nothing more can be learned."""
        remaining = self.open
        if not remaining or self.good == self.n - 1 or self.bad == 0:
            return None
        # Both ends first: they tell "all good" and "all bad" apart from a change in between.
        if self.bad == self.n and self.n - 1 in remaining:
            return self.n - 1
        if self.good == -1 and 0 in remaining:
            return 0
        middle = (self.good + self.bad) // 2
        return min(remaining, key=lambda index: (abs(index - middle), index))

    def tell(self, index: int, answer: Answer) -> None:
        """Record the answer for one index."""
        if not 0 <= index < self.n:
            raise ValueError(f"index {index} is outside 0…{self.n - 1}")
        if answer is Answer.SKIPPED:
            self.skipped.add(index)
            return
        if answer is Answer.GOOD:
            if index >= self.bad:
                raise ValueError(f"{index} is good, but {self.bad} before it is bad")
            self.good = max(self.good, index)
        else:
            if index <= self.good:
                raise ValueError(f"{index} is bad, but {self.good} after it is good")
            self.bad = min(self.bad, index)

    @property
    def first_bad(self) -> range:
        """Every index at which it can have broken; empty when all are good."""
        return (
            range(self.good + 1, min(self.bad, self.n - 1) + 1) if self.bad < self.n else range(0)
        )
