"""Continuations of one context in one row: what several of them begin with is there once. (torch)

Behind its context a row holds a tree of tokens in preorder, and each sees the context, what it
follows in the tree, and itself: one pass weighs all continuations, and no keys are copied for them
(the token trees of SpecInfer, arXiv 2305.09781 §4.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterbot.eval.questions import Ids


@dataclass(frozen=True)
class Tree:
    """The tokens that are read of some continuations: all but the last of each.

    Attributes:
        ids: the nodes' tokens, in preorder.
        depths: how many nodes each follows.
        ends: behind which node the last of its descendants lies.
        paths: for each continuation the nodes that predict its tokens, one after the other; −1 is
            the context's last token.
    """

    ids: Ids
    depths: tuple[int, ...]
    ends: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]


def tree(continuations: Sequence[Ids]) -> Tree:
    """The tree of continuations of one context, none of them empty."""
    ids: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    paths: list[tuple[int, ...]] = [()] * len(continuations)
    path: list[int] = []
    # Sorted, those that begin alike are neighbours.
    for index in sorted(range(len(continuations)), key=continuations.__getitem__):
        read = continuations[index][:-1]
        shared = 0
        for node, token in zip(path, read, strict=False):
            if ids[node] != token:
                break
            shared += 1
        for node in path[shared:]:
            ends[node] = len(ids)
        del path[shared:]
        for depth in range(shared, len(read)):
            path.append(len(ids))
            ids.append(read[depth])
            depths.append(depth)
            ends.append(0)
        paths[index] = (-1, *path)
    for node in path:
        ends[node] = len(ids)
    return Tree(tuple(ids), tuple(depths), tuple(ends), tuple(paths))


def laid_out(trees: Sequence[Tree], real: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Where the positions of rows that end in trees are, and what they see.

    Shapes: `real` (rows, new), 1 for a token and 0 for what fills the row on the left. Returns
        what is to be added to each place that the mask alone would give it, (rows, new); and what
        is added to the scores of attention, (rows, 1, new, new): 0, or the least of `dtype`.
    """
    rows, new = real.shape
    shift = torch.zeros(rows, new, dtype=torch.long)
    ends = torch.full((rows, new), new)
    for row, one in enumerate(trees):
        start = new - len(one.ids)
        shift[row, start:] = torch.tensor(one.depths) - torch.arange(len(one.ids))
        ends[row, start:] = torch.tensor(one.ends) + start
    at = torch.arange(new, device=real.device)
    # What fills a row is seen by itself alone, so that nobody sees nothing.
    ends = torch.where(real > 0, ends.to(real.device), at + 1)
    seen = (at <= at[:, None]) & (at[:, None] < ends[:, None])
    return shift.to(real.device), scores(seen, dtype)[:, None]


def scores(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of attention, of like shape: 0 where something is seen."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )
