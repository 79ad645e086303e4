"""Which requests share a forward pass: sorted by length, bounded by tokens, halved on OOM.

A batch costs rows × its longest row, so requests of like length go together (unsorted batches were
2.2 × slower), and the bound is on that product, not on the number of rows. (torch)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from adapterbot.errors import OurFailure

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")

_BUDGET = {"cpu": 8192, "cuda": 65_536}
_MOST_ROWS = 512


class Batcher:
    """Runs requests in batches within a token budget that only ever shrinks."""

    def __init__(self, budget: int | None, device: str) -> None:
        self.budget = budget or _BUDGET.get(device, _BUDGET["cpu"])

    def run(
        self,
        requests: Sequence[_Request],
        length: Callable[[_Request], int],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
    ) -> Iterator[tuple[int, _Result]]:
        """Yields (index in `requests`, result), batch by batch, longest first.

        The longest batch comes first so that memory runs out at once or never.

        Args:
            length: how many tokens a request takes in its batch.
            compute: answers one batch, in its order.

        Raises:
            OurFailure: a single request does not fit into memory.
        """
        waiting = sorted(range(len(requests)), key=lambda i: (-length(requests[i]), i))
        while waiting:
            rows = self._fitting(length(requests[waiting[0]]), len(waiting))
            batch = waiting[:rows]
            try:
                results = compute([requests[index] for index in batch])
            except torch.OutOfMemoryError as error:
                self._shrink(rows, error)
                continue
            waiting = waiting[rows:]
            yield from zip(batch, results, strict=True)

    def _fitting(self, longest: int, waiting: int) -> int:
        return max(1, min(self.budget // max(longest, 1), waiting, _MOST_ROWS))

    def _shrink(self, rows: int, error: torch.OutOfMemoryError) -> None:
        if rows == 1:
            raise OurFailure(
                "the device has too little memory for a single sample",
                fix="use a smaller base, a shorter sample, or a larger device",
            ) from error
        torch.cuda.empty_cache()
        self.budget = max(1, self.budget // 2)
