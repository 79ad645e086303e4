"""What many prompts begin with: few-shot headers, system prompts, a document with its questions.

Pure. Which beginnings are worth reading once is decided here; `reading` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# A stem costs a pass of its own, so it must spare more positions than such a pass is worth.
_LEAST_SPARED = 128


Stem = tuple[int, int, int]
"""The texts from … to … in sorted order, and how many of their first tokens they share."""


@dataclass
class _Node:
    """A beginning of `depth` tokens that the texts from `left` on have in common.

    `stems` are those within it, inner behind outer; they spare `spared` tokens to `covered` texts.
    """

    depth: int
    left: int
    spared: int = 0
    covered: int = 0
    stems: list[Stem] = field(default_factory=list)

    def close(self, right: int) -> None:
        """Takes a stem of its own where that spares more: for all texts up to `right`, or for
        those that none of the stems within it covers."""
        count = right - self.left
        whole, rest = (count - 1) * self.depth, (count - self.covered - 1) * self.depth
        if whole >= max(self.spared + max(rest, 0), _LEAST_SPARED):
            self.spared, self.covered = whole, count
            self.stems = [(self.left, right, self.depth)]
        elif rest >= _LEAST_SPARED:
            self.spared, self.covered = self.spared + rest, count
            self.stems = [(self.left, right, self.depth), *self.stems]

    def adopt(self, child: _Node) -> None:
        """What was found within a longer beginning counts here too."""
        self.spared += child.spared
        self.covered += child.covered
        self.stems += child.stems


def stem_lengths(texts: Sequence[Sequence[int]]) -> list[int]:
    """How many of each text's first tokens are read once, for all texts that begin with them.

    A stem of d tokens that n texts share spares (n − 1)·d. Sorted texts with a common beginning
    are neighbours, so the candidates are the intervals of the array of their longest common
    prefixes (Abouelhoda et al. 2004, §3); from the longest beginning to the shortest, each is taken
    if that spares more than what was taken within it.

    Returns: one length per text, less than the text's own, 0 where nothing is worth sharing.
    """
    order = sorted(range(len(texts)), key=lambda index: tuple(texts[index][:-1]))
    arrays = [np.asarray(texts[index][:-1], dtype=np.int64) for index in order]
    path = [_Node(0, 0)]
    for right in range(1, len(arrays) + 1):
        common = _common(arrays[right - 1], arrays[right]) if right < len(arrays) else 0
        left, last = right - 1, None
        while path[-1].depth > common:
            last = path.pop()
            last.close(right)
            left = last.left
            if path[-1].depth >= common:
                path[-1].adopt(last)
        if path[-1].depth < common:
            path.append(_Node(common, left))
            if last is not None:
                path[-1].adopt(last)
    found = [0] * len(texts)
    for start, stop, depth in path[0].stems:
        for place in range(start, stop):
            found[order[place]] = depth
    return found


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """The length of the longest common prefix."""
    size = min(len(one), len(other))
    differs = one[:size] != other[:size]
    return int(differs.argmax()) if differs.any() else size
