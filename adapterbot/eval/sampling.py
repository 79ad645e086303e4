"""The next token, greedy or drawn: a function of the logits and of nothing that batching changes.

A draw is a Gumbel maximum (arXiv 1411.0030 §2): argmax(logits/T + G), which is a draw from
softmax(logits/T). G is a hash of (seed, sample, step, token), so two adapters that are asked the
same sample share their noise and differ only where their probabilities do. (torch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapterbot.eval.questions import noise_key


@dataclass(frozen=True)
class Choice:
    """How one row's next tokens are chosen. `temperature` 0 is greedy; `key` seeds its noise."""

    temperature: float = 0.0
    top_p: float = 1.0
    key: int = 0


GREEDY = Choice()

# No token: what a row goes on with whose logits are not finite, as fp16 makes them now and then.
# It would be the vocabulary's first, and an answer of those a wrong one like any other.
NONE = -1

# What is colder is greedy: the noise is far below the logits' last bit long before, and what is
# divided by still less is infinite.
_COLD = 1e-30


def next_tokens(logits: Tensor, choices: Sequence[Choice], steps: Sequence[int]) -> list[int]:
    """The token that each row of `logits` (rows, vocabulary) goes on with, or `NONE`.

    `steps` counts the tokens of the row's answer before this one.
    """
    best = logits.argmax(-1)
    drawn = [index for index, choice in enumerate(choices) if choice.temperature > _COLD]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        picked = _draw(logits[rows], [choices[i] for i in drawn], [steps[i] for i in drawn])
        best = best.index_copy(0, rows, picked)
    # What is not a number is the largest to argmax, so the one that was taken tells of the row.
    finite = logits.gather(-1, best[:, None])[:, 0].isfinite()
    tokens: list[int] = best.masked_fill(~finite, NONE).tolist()
    return tokens


def _draw(logits: Tensor, choices: Sequence[Choice], steps: Sequence[int]) -> Tensor:
    device = logits.device
    temperature = torch.tensor([c.temperature for c in choices], device=device)[:, None]
    scaled = logits / temperature
    if any(choice.top_p < 1 for choice in choices):
        top_p = torch.tensor([choice.top_p for choice in choices], device=device)
        scaled = _nucleus(scaled, top_p[:, None])
    keys = torch.tensor(
        [
            noise_key(choice.key, "step", str(step))
            for choice, step in zip(choices, steps, strict=True)
        ],
        device=device,
    )
    return (scaled + gumbel(keys, logits.shape[-1])).argmax(-1)


def _nucleus(scaled: Tensor, top_p: Tensor) -> Tensor:
    """−∞ outside the smallest set of likeliest tokens with mass ≥ top_p (arXiv 1904.09751)."""
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    mass = ordered.softmax(-1).cumsum(-1)
    outside = mass - ordered.softmax(-1) >= top_p
    outside[:, 0] = False  # not even where top_p is too small for fp32, and 0
    return scaled.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)


def gumbel(keys: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise, a pure function of key and position: (n,) keys → (n, size).

    The hash is SplitMix64's finaliser (Steele et al., OOPSLA 2014, fig. 15) over key + i·φ.
    """
    positions = torch.arange(1, size + 1, device=keys.device, dtype=torch.int64)
    # 64-bit arithmetic wraps around; constants are written as signed numbers.
    z = keys[:, None] + positions * -7046029254386353131
    z = (z ^ _shift(z, 30)) * -4658895280553007687
    z = (z ^ _shift(z, 27)) * -7723592293110705685
    z = z ^ _shift(z, 31)
    uniform = (_shift(z, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform)).float()


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64, whose own is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
