"""Which requests share a forward pass: sorted by length, bounded by tokens, halved on OOM.

A batch costs rows × its longest row, so requests of like length go together (unsorted batches were
2.2 × slower), and the bound is on that product, not on the number of rows. (torch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from adapterbot.errors import OurFailure
from adapterbot.weights.memory import memory_ended

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")

_BUDGET = {"cpu": 16_384, "cuda": 65_536}
_MOST_ROWS = 512


# What a position that is only attended to costs beside one that is computed.
_KEPT = 0.25


def cost(stem: int, length: int) -> int:
    """What it costs to read a row of `length` positions, the first `stem` of them shared."""
    return math.ceil(_KEPT * stem) + length - stem


def no_family(_: object) -> Hashable:
    """Where no requests belong together."""
    return None


def one_pass(_: object) -> int:
    """Where no request takes more passes than another."""
    return 1


def ordered(
    requests: Mapping[int, _Request],
    length: Callable[[_Request], int],
    family: Callable[[_Request], Hashable],
    passes: Callable[[_Request], int],
) -> list[int]:
    """Keys by passes and length, most first; families together, by their first member."""
    sizes = {key: (-passes(request), -length(request)) for key, request in requests.items()}
    by_size = sorted(requests, key=lambda key: (sizes[key], key))
    rank: dict[Hashable, int] = {}
    for key in by_size:
        rank.setdefault(family(requests[key]), len(rank))
    return sorted(by_size, key=lambda key: rank[family(requests[key])])


class Batcher:
    """Runs requests in batches within a token budget that only ever shrinks."""

    def __init__(self, budget: int | None, device: str) -> None:
        self.budget = budget or _BUDGET.get(device, _BUDGET["cpu"])

    def run(
        self,
        requests: Mapping[int, _Request],
        length: Callable[[_Request], int],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
        *,
        family: Callable[[_Request], Hashable] = no_family,
        passes: Callable[[_Request], int] = one_pass,
    ) -> Iterator[tuple[int, _Result]]:
        """Yields (key of the request, result), batch by batch, longest first.

        The longest batch comes first so that memory runs out early or never. The requests may be
        changed by the caller while it reads; what was given at the call is what is run.

        Args:
            length: how many tokens a request takes in its batch.
            compute: answers one batch, in its order.
            family: requests with the same are kept together.
            passes: grows with how many passes a request takes; those of like number go together,
                whatever their lengths, as a batch takes as many as the slowest of them.

        Raises:
            OurFailure: a single request does not fit into memory.
        """
        requests = dict(requests)
        waiting = ordered(requests, length, family, passes)
        while waiting:
            batch = self.head(waiting, requests, length)
            results = self._attempt([requests[key] for key in batch], compute)
            if results is None:
                # Only now, with the failed pass's frames gone, is there memory to give back.
                torch.cuda.empty_cache()
                self.shrink([length(requests[key]) for key in batch])
                continue
            waiting = waiting[len(batch) :]
            yield from zip(batch, results, strict=True)

    def shrink(self, lengths: Sequence[int]) -> None:
        """A batch of these lengths did not fit: from now on at most half of it."""
        self.budget = min(self.budget, max(1, len(lengths) * max(lengths) // 2))

    def head(
        self,
        waiting: Sequence[int],
        requests: Mapping[int, _Request],
        length: Callable[[_Request], int],
    ) -> list[int]:
        """The first batch of what is waiting."""
        rows = self._rows([length(requests[key]) for key in waiting[:_MOST_ROWS]])
        return list(waiting[:rows])

    def _rows(self, lengths: Sequence[int]) -> int:
        """How many of the first rows stay within the budget when padded to their longest."""
        longest = 1
        for count, length in enumerate(lengths):
            longest = max(longest, length)
            if count and (count + 1) * longest > self.budget:
                return count
        return len(lengths)

    def _attempt(
        self,
        batch: Sequence[_Request],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
    ) -> Sequence[_Result] | None:
        try:
            with torch.inference_mode():
                return compute(batch)
        except RuntimeError as error:
            if not memory_ended(error):
                raise
            if len(batch) == 1:
                raise OurFailure(
                    "the device has too little memory for a single sample",
                    fix="use a smaller base, a shorter sample, or a larger device",
                ) from error
            return None
