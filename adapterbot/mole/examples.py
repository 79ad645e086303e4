"""Training rows held out, and put in order: both drawn by seed. Torch-free."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from adapterbot.conversations import Example


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Training and validation rows, the latter up to `share` of all, drawn by seed.

    Rows with one prompt are on one side: the loss of a row whose question was trained on says
    nothing of a question that was not. A prompt of more rows than are still wanted stays.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 no secret
    asking: dict[tuple[int, ...], list[int]] = {}
    for at in order:
        asking.setdefault(examples[at].prompt, []).append(at)
    wanted = round(share * len(order))
    held_out: set[int] = set()
    for rows in asking.values():
        if len(held_out) + len(rows) <= wanted:
            held_out.update(rows)
    return (
        [example for at, example in enumerate(examples) if at not in held_out],
        [example for at, example in enumerate(examples) if at in held_out],
    )


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """One epoch's batches as indices: shuffled by seed and epoch, so that a resumed run sees the
    batches that it would have seen."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 no secret
    for start in range(0, count, size):
        yield order[start : start + size]
