"""Which requests share a forward pass: sorted by length, bounded by tokens, halved on OOM.

A batch costs rows × its longest row, so requests of like length go together (unsorted batches were
2.2 × slower), and the bound is on that product, not on the number of rows. (torch)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from adapterbot.errors import OurFailure

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")

_BUDGET = {"cpu": 8192, "cuda": 65_536}
_MOST_ROWS = 512


def _always() -> bool:
    return True


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
        proceed: Callable[[], bool] = _always,
    ) -> Iterator[tuple[int, _Result]]:
        """Yields (key of the request, result), batch by batch, longest first.

        The longest batch comes first so that memory runs out at once or never. The requests may be
        changed by the caller while it reads; what was given at the call is what is run.

        Args:
            length: how many tokens a request takes in its batch.
            compute: answers one batch, in its order.
            proceed: asked before each batch; False ends the run early.

        Raises:
            OurFailure: a single request does not fit into memory.
        """
        requests = dict(requests)
        waiting = sorted(requests, key=lambda key: (-length(requests[key]), key))
        while waiting and proceed():
            batch = waiting[: self._rows(length(requests[waiting[0]]))]
            results = self._attempt([requests[key] for key in batch], compute)
            if results is None:
                # Only now, with the failed pass's frames gone, is there memory to give back.
                torch.cuda.empty_cache()
                self.budget = max(1, self.budget // 2)
                continue
            waiting = waiting[len(batch) :]
            yield from zip(batch, results, strict=True)

    def _rows(self, longest: int) -> int:
        return max(1, min(self.budget // max(longest, 1), _MOST_ROWS))

    def _attempt(
        self,
        batch: Sequence[_Request],
        compute: Callable[[Sequence[_Request]], Sequence[_Result]],
    ) -> Sequence[_Result] | None:
        try:
            with torch.inference_mode():
                return compute(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise OurFailure(
                    "the device has too little memory for a single sample",
                    fix="use a smaller base, a shorter sample, or a larger device",
                ) from error
            return None
