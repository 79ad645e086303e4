"""The coordinates in which a gate is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapterbot.mole.gate import Gate
from adapterbot.mole.whitening import SecondMoments, Whitened
from adapterbot.weights.mixture_config import GateConfig, Router

LAYERS, TOKENS, WIDTH, EXPERTS = 2, 400, 6, 3


def states(seed: int) -> list[Tensor]:
    """A residual stream: a long mean, and directions of very different lengths."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.logspace(-1, 2, WIDTH)
    mix = torch.randn(WIDTH, WIDTH, generator=draw)
    return [
        (torch.randn(TOKENS, WIDTH, generator=draw) * lengths + 30) @ mix for _ in range(LAYERS)
    ]


def whitened(hidden: list[Tensor], router: Router = Router.PER_LAYER) -> tuple[Gate, Whitened]:
    moments = SecondMoments()
    for part in range(0, TOKENS, 100):
        moments.add([x[part : part + 100] for x in hidden])
    gate = Gate(GateConfig(num_task_adapters=EXPERTS, router=router), LAYERS, WIDTH, seed=1)
    return gate, Whitened(gate, moments.means())


def step(gate: Gate, white: Whitened, hidden: list[Tensor], wanted: Tensor) -> float:
    """One step of Adam towards `wanted`; the loss before it."""
    gate.weight.grad = None
    loss = torch.stack(
        [
            -gate.probabilities(layer, x)[range(TOKENS), wanted].log().mean()
            for layer, x in enumerate(hidden)
        ]
    ).mean()
    loss.backward()
    white.pull()
    torch.optim.Adam([white.weight], lr=0.05).step()
    white.push()
    return float(loss.detach())


@pytest.mark.parametrize("router", Router)
def test_the_gate_begins_as_it_was(router: Router) -> None:
    gate, white = whitened(states(0), router)
    before = gate.weight.detach().clone()
    white.push()
    torch.testing.assert_close(gate.weight.detach(), before, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_the_white_coordinates() -> None:
    hidden = states(2)
    gate, white = whitened(hidden)
    moments = torch.stack([x.double().mT @ x.double() / TOKENS for x in hidden])
    ridge = 1e-3 * moments.diagonal(dim1=1, dim2=2).mean(1)
    lower = torch.linalg.cholesky(moments + ridge[:, None, None] * torch.eye(WIDTH))
    v = white.weight.detach().double().requires_grad_()
    logits = torch.stack([x.double() for x in hidden]) @ (v @ torch.linalg.inv(lower)).mT
    logits.softmax(-1)[..., 0].log().mean().backward()

    torch.stack(
        [gate.probabilities(i, x)[:, 0].log().mean() for i, x in enumerate(hidden)]
    ).mean().backward()
    white.pull()
    assert white.weight.grad is not None
    torch.testing.assert_close(white.weight.grad.double(), v.grad, rtol=1e-3, atol=1e-5)


def test_a_models_scale_changes_no_step() -> None:
    wanted = torch.arange(TOKENS) % EXPERTS
    found = []
    for scale in (1.0, 256.0):
        hidden = [scale * x for x in states(3)]
        gate, white = whitened(hidden)
        with torch.no_grad():
            white.weight.zero_()
        white.push()
        losses = [step(gate, white, hidden, wanted) for _ in range(4)]
        found.append(losses)
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0][-1] < found[0][0]
