"""VB-LoRA's rows: sub-vectors chosen from a shared bank, and the low rank they make. (torch)

A_u = [ Σ_k w_k · v_{c_k} ] over every tile of inputs, B_u likewise of outputs
                                                        (arXiv 2405.15179 eq. 3; PEFT 0.21)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adapterbot.bank.codec import Rows
from adapterbot.bank.manifest import VbLoraLayout


def expanded_width(layout: VbLoraLayout) -> int:
    """How many numbers the factors of all modules have."""
    return sum(layout.rank * (m.inputs + m.outputs) for m in layout.modules)


def expand(layout: VbLoraLayout, rows: Rows, vectors: Tensor) -> Tensor:
    """Per module A (rank, inputs) and B (outputs, rank), flat and one behind the other.

    Shapes: `vectors` (bank_size, length); returns (n, expanded_width).
    """
    parts = [
        part.reshape(len(rows), -1) for pair in factors(layout, rows, vectors) for part in pair
    ]
    return torch.cat(parts, dim=1)


def factors(layout: VbLoraLayout, rows: Rows, vectors: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A (n, rank, inputs) and B (n, outputs, rank) of each module."""
    n, rank, k = len(rows), layout.rank, layout.top_k
    weights = torch.from_numpy(np.ascontiguousarray(rows.values))
    choices = torch.from_numpy(np.ascontiguousarray(rows.choices))
    mixed = [
        (weight.reshape(n, -1, k, 1) * vectors[choice.reshape(n, -1, k)]).sum(2)
        for weight, choice in zip(
            weights.split(layout.vectors, dim=1), choices.split(layout.vectors, dim=1), strict=True
        )
    ]
    # PEFT keeps A's tiles as (rank, tile) and B's as (tile, rank).
    return [
        (
            a.reshape(n, rank, -1),
            b.reshape(n, -1, rank, layout.length).transpose(2, 3).reshape(n, -1, rank),
        )
        for a, b in zip(mixed[::2], mixed[1::2], strict=True)
    ]
