"""Continuations as trees: each beginning there once, and each token seeing its own and no other."""

from __future__ import annotations

from itertools import accumulate

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.eval.trees import laid_out, tree

CONTINUATIONS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=6
)


@settings(max_examples=300)
@given(CONTINUATIONS)
def test_every_beginning_is_there_once(continuations: list[tuple[int, ...]]) -> None:
    found = tree(continuations)
    begun = {one[:size] for one in continuations for size in range(1, len(one))}
    assert len(found.ids) == len(begun)
    for one, path in zip(continuations, found.paths, strict=True):
        assert path[0] == -1
        assert tuple(found.ids[node] for node in path[1:]) == one[:-1]
        assert [found.depths[node] for node in path[1:]] == list(range(len(one) - 1))


@settings(max_examples=100)
@given(st.lists(CONTINUATIONS, min_size=1, max_size=4), st.lists(st.integers(1, 4), min_size=4))
def test_a_token_sees_what_it_follows_and_nothing_else(
    batch: list[list[tuple[int, ...]]], contexts: list[int]
) -> None:
    trees = [tree(continuations) for continuations in batch]
    lengths = [size + len(one.ids) for size, one in zip(contexts, trees, strict=False)]
    new = max(lengths)
    real = torch.tensor([[0] * (new - length) + [1] * length for length in lengths])
    shift, scores = laid_out(trees, real, torch.float32)
    assert scores.shape == (len(batch), 1, new, new)
    seen = (scores[:, 0] == 0).tolist()
    for row, (one, context, length) in enumerate(zip(trees, contexts, lengths, strict=False)):
        filled, start = new - length, new - len(one.ids)
        for place in range(filled, start):
            assert [at for at in range(new) if seen[row][place][at]] == list(
                range(filled, place + 1)
            )
        for path in one.paths:
            for upto in accumulate(([node] for node in path[1:]), initial=[]):
                if upto:
                    want = [*range(filled, start), *(start + node for node in upto)]
                    place = start + upto[-1]
                    assert [at for at in range(new) if seen[row][place][at]] == want
                    assert place - filled + int(shift[row, place]) == context + len(upto) - 1
