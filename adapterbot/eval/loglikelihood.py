"""log P(continuation | context), many at once, without a vocabulary × length tensor. (torch)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward, left_padded
from adapterbot.eval.prompts import Ids


@dataclass(frozen=True)
class LikelihoodRequest:
    """How likely is each of `continuations` after `context`? None of them may be empty."""

    context: Ids
    continuations: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        """How many positions the request takes: its rows times the longest of them."""
        longest = max(map(len, self.continuations))
        return len(self.continuations) * (len(self.context) + longest - 1)


def loglikelihoods(
    base: BaseModel, forward: Forward, requests: Sequence[LikelihoodRequest]
) -> list[tuple[float, ...]]:
    """Σ_t log P(continuation_t | context, continuation_<t), natural logarithm.

    One forward pass over all rows, left-padded; the head runs over the continuations only.

    Returns: for each request one value per continuation.
    """
    pairs = [(r.context, continuation) for r in requests for continuation in r.continuations]
    rows = [(context + continuation)[:-1] for context, continuation in pairs]
    ids, mask, positions = left_padded(rows, base.pad, base.device)
    hidden = forward.hidden(ids, mask, positions)
    wanted = torch.cat([hidden[i, ids.shape[1] - len(c) :] for i, (_, c) in enumerate(pairs)])
    targets = torch.tensor([t for _, c in pairs for t in c], device=base.device)
    values = _token_loglikelihoods(forward, wanted, targets)
    sums = iter([float(part.sum()) for part in values.split([len(c) for _, c in pairs])])
    return [tuple(next(sums) for _ in request.continuations) for request in requests]


def _token_loglikelihoods(forward: Forward, hidden: Tensor, targets: Tensor) -> Tensor:
    """The log P(target) at each position: (n, width), (n,) → (n,) in fp64 on the CPU."""
    parts = []
    done = 0
    for logits in forward.logits(hidden):
        target = targets[done : done + len(logits), None]
        done += len(logits)
        parts.append(logits.gather(-1, target)[:, 0] - logits.logsumexp(-1))
    return torch.cat(parts).double().cpu()
