"""Coordinates in which a gate is trained: hidden states are white there. (torch)

A residual stream has directions that are hundreds of times as long as others, and a mean that is
longer than most. In its own coordinates a gate's loss is a narrow valley, and the learning rate
that fits it depends on the model. With C = E[x xᵀ] = L Lᵀ over the tokens that are read, G = V L⁻¹
makes G x = V (L⁻¹ x), whose input has second moment I: the optimiser moves V, the mixture runs on
G. (LeCun, Bottou, Orr & Müller, "Efficient BackProp", 1998, §4.3.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adapterbot.mole.gate import Gate

# Of the mean second moment, added to each: directions that hardly occur are not blown up.
_RIDGE = 1e-3


class SecondMoments:
    """E[x xᵀ] before every layer, gathered pass by pass."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._count = 0

    def add(self, hidden: Sequence[Tensor]) -> None:
        """One pass: for every layer the (tokens, width) states of the tokens that count."""
        if not self._sums:
            self._sums = [x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float32) for x in hidden]
        for total, x in zip(self._sums, hidden, strict=True):
            total.addmm_(x.float().mT, x.float())
        self._count += len(hidden[0])

    def means(self) -> Tensor:
        """(layers, width, width), fp32."""
        return torch.stack(self._sums) / self._count


class Whitened:
    """A gate's G as V L⁻¹.

    Attributes:
        weight: V, (layers, N, width): what the optimiser moves.
    """

    def __init__(self, gate: Gate, moments: Tensor) -> None:
        """Begins at the gate as it is.

        Args:
            moments: (layers, width, width); a shared gate takes their mean.
        """
        if len(gate.weight) == 1:
            moments = moments.mean(dim=0, keepdim=True)
        ridge = _RIDGE * moments.diagonal(dim1=1, dim2=2).mean(dim=1)
        self._gate = gate
        self._l = torch.linalg.cholesky(
            moments + torch.diag_embed(ridge[:, None].expand(-1, moments.shape[1]))
        )
        self.weight = nn.Parameter(gate.weight.detach() @ self._l)

    @torch.no_grad()
    def pull(self) -> None:
        """Takes the gate's gradient over: ∂V = ∂G L⁻ᵀ."""
        assert self._gate.weight.grad is not None  # noqa: S101 called after `backward`
        self.weight.grad = torch.linalg.solve_triangular(
            self._l.mT, self._gate.weight.grad, upper=True, left=False
        )

    @torch.no_grad()
    def push(self) -> None:
        """Makes the gate what V says: G = V L⁻¹."""
        self._gate.weight.copy_(
            torch.linalg.solve_triangular(self._l, self.weight, upper=False, left=False)
        )
