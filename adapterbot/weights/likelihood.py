"""How likely the answers of rows are under whatever is attached to a model. (torch)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterbot.conversations import Example

_NOT_ASKED = -100


@torch.inference_mode()
def evaluate(model: Any, examples: Sequence[Example], rows: int, *, pad: int) -> float | None:
    """Mean −log p of an answer token under whatever is attached; None without examples."""
    total, count = 0.0, 0
    by_length = sorted(examples, key=lambda example: example.length)
    for start in range(0, len(by_length), rows):
        part = by_length[start : start + rows]
        total += float(answer_nll(model, part, pad)[0].sum())
        count += sum(len(example.answer) for example in part)
    return total / count if count else None


def answer_nll(model: Any, examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """−log p of each of the answers' tokens where it is written, 0 elsewhere, (rows, longest − 1);
    the mask of real positions, and where answers are written, both (rows, longest)."""
    longest = max(example.length for example in examples)
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    wanted = torch.full((len(examples), longest), _NOT_ASKED)
    for row, example in enumerate(examples):
        content = torch.tensor(example.prompt + example.answer)
        ids[row, : example.length] = content
        mask[row, : example.length] = 1
        wanted[row, len(example.prompt) : example.length] = content[len(example.prompt) :]
    device = next(model.parameters()).device
    ids, mask, wanted = ids.to(device), mask.to(device), wanted.to(device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    answers = F.pad(wanted[:, 1:] != _NOT_ASKED, (0, 1))
    # In fp32 where something is asked only: over a whole vocabulary the rest is gigabytes.
    here = answers[:, :-1].to(logits.device)
    asked = wanted[:, 1:].to(logits.device)[here]
    nll = torch.zeros(here.shape, device=logits.device)
    nll[here] = F.cross_entropy(logits[:, :-1][here].float(), asked, reduction="none")
    return nll, mask, answers
