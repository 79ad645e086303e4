"""A forward pass in two halves: hidden states everywhere, logits where they are needed. (torch)

Vocabulary × length is by far the largest tensor of an evaluation, and almost all of it is thrown
away. The body runs over everything, the head only over the positions somebody asks for, in chunks.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adapterbot.errors import OurFailure

# 128 MiB in fp32: 256 positions of a vocabulary of 128 k.
_LOGITS_AT_ONCE = 32 * 1024 * 1024


class Forward:
    """A causal language model split where its head begins.

    The head's own arithmetic (soft-capping, logit scale, a bias) stays the model's: its forward
    runs with the body replaced by hidden states that are already there.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.base_model
        if self.body is model:
            raise OurFailure(
                f"{type(model).__name__} has no body of its own to run",
                fix="report this architecture to adapterbot",
            )
        self._takes = frozenset(inspect.signature(self.body.forward).parameters)
        self._chunk = max(1, _LOGITS_AT_ONCE // model.config.get_text_config().vocab_size)

    def hidden(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any = None) -> Tensor:
        """Last hidden states.

        Shapes: `ids` and `positions` (rows, new), `mask` (rows, past + new), 1 where a token
        counts; returns (rows, new, width). `cache` is read and appended to.
        """
        arguments: dict[str, Any] = {"attention_mask": mask, "use_cache": cache is not None}
        if cache is not None:
            arguments["past_key_values"] = cache
        if "position_ids" in self._takes:
            arguments["position_ids"] = positions
        output = self.body(input_ids=ids, **arguments)
        return output[0]

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Logits in fp32 of chosen positions, in chunks: (n, width) → (≤ chunk, vocabulary)."""
        for part in hidden.split(self._chunk):
            with self._body_returns(part[None]):
                ids = torch.zeros(1, len(part), dtype=torch.long, device=part.device)
                yield self.model(input_ids=ids, use_cache=False).logits[0].float()

    @contextmanager
    def _body_returns(self, hidden: Tensor) -> Iterator[None]:
        own = self.body.__dict__.get("forward")
        self.body.forward = lambda *_, **__: _HiddenOnly(hidden)
        try:
            yield
        finally:
            if own is None:
                del self.body.forward
            else:
                self.body.forward = own


class _HiddenOnly:
    """What a body returns, with nothing in it but the last hidden state."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int | slice) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def left_padded(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of token ids as one matrix, short ones filled on the left.

    Returns: ids, mask (1 for a real token) and positions (which count real tokens only), each
        (rows, longest).
    """
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        if row:
            ids[index, longest - len(row) :] = torch.tensor(row)
            mask[index, longest - len(row) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return ids.to(device), mask.to(device), positions.to(device)
