"""Every way to compute a layer's mixture against the sum written out by token, in float64."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor

from adapterbot.mole.gate import Gate, balance_loss
from adapterbot.mole.kernels import TABLE, ExpertStack, Routing, Way, choose, mixed
from adapterbot.weights.mixture_config import GateConfig

RANKS = [(4, 4, 4, 4), (1, 3, 0, 5), (2, 2)]


def stack(
    ranks: tuple[int, ...], dtype: torch.dtype, inner: int = 24, out: int = 40
) -> ExpertStack:
    total = sum(ranks)
    return ExpertStack(
        a=torch.randn(total, inner, dtype=torch.float64).to(dtype),
        b=torch.randn(out, total, dtype=torch.float64).to(dtype),
        ranks=ranks,
        scales=tuple(0.5 + 0.7 * i for i in range(len(ranks))),
        owner=torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks)),
    )


def routing(tokens: int, n: int, k: int) -> Routing:
    probabilities = torch.randn(tokens, n).softmax(-1)
    kept, experts = probabilities.topk(k)
    return Routing(experts, kept / kept.sum(-1, keepdim=True))


def written_out(x: Tensor, s: ExpertStack, r: Routing) -> Tensor:
    """The formula of the design, one token and one expert at a time."""
    x, a, b = x.double(), s.a.double(), s.b.double()
    rows = []
    for t in range(len(x)):
        total = torch.zeros(len(b), dtype=torch.float64)
        for weight, expert in zip(r.weights[t].double(), r.experts[t].tolist(), strict=True):
            ranks = s.of(expert)
            total = total + weight * s.scales[expert] * (b[:, ranks] @ (a[ranks] @ x[t]))
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("tokens", [1, 17])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_every_way_is_the_formula(
    way: Way, ranks: tuple[int, ...], tokens: int, dtype: torch.dtype, bound: float
) -> None:
    torch.manual_seed(sum(ranks) + tokens)
    s, r = stack(ranks, dtype), routing(tokens, len(ranks), min(2, len(ranks)))
    x = torch.randn(tokens, 24).to(dtype)
    want = written_out(x, s, r)
    got = mixed(torch.zeros(tokens, 40, dtype=dtype), x, s, r, way)
    assert got.dtype == dtype
    assert (got.double() - want).norm() <= bound * want.norm()
    # Onto what the module gave, in whatever dtype it gave it.
    own = torch.randn(tokens, 40)
    before, onto = own.clone(), mixed(own, x, s, r, way)
    assert onto.dtype == torch.float32
    assert (onto.double() - own.double() - want).norm() <= bound * (want.norm() + own.norm())
    assert torch.equal(own, before)


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("ranks", RANKS)
def test_every_way_has_the_formulas_gradients(way: Way, ranks: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    s, k = stack(ranks, torch.float32), min(2, len(ranks))
    logits, x = torch.randn(9, len(ranks)), torch.randn(9, 24)
    own, target = torch.randn(9, 40), torch.randn(9, 40)

    def gradients(reference: bool) -> list[Tensor]:
        leaf = logits.double().requires_grad_() if reference else logits.clone().requires_grad_()
        inputs = x.double().requires_grad_() if reference else x.clone().requires_grad_()
        kept, experts = leaf.softmax(-1).topk(k)
        r = Routing(experts, kept / kept.sum(-1, keepdim=True))
        y = written_out(inputs, s, r) if reference else mixed(own, inputs, s, r, way)
        (y * target.to(y)).sum().backward()
        assert leaf.grad is not None
        assert inputs.grad is not None
        return [leaf.grad.double(), inputs.grad.double()]

    for got, want in zip(gradients(reference=False), gradients(reference=True), strict=True):
        assert (got - want).norm() <= 1e-4 * want.norm() + 1e-12


def test_an_expert_without_tokens_is_no_special_case() -> None:
    s = stack((3, 3, 3), torch.float32)
    r = Routing(torch.tensor([[2, 0]] * 5), torch.tensor([[0.75, 0.25]] * 5))
    x = torch.randn(5, 24)
    for way in Way:
        torch.testing.assert_close(
            mixed(torch.zeros(5, 40), x, s, r, way), written_out(x, s, r).float()
        )


def test_a_way_is_chosen_for_every_shape() -> None:
    shapes = itertools.product((1, 8, 4096), (2, 64), (1, 16, 256), (1, 2), (64, 4096))
    for shape, device in itertools.product(shapes, ("cpu", "cuda")):
        assert choose(*shape, device) in Way


def test_what_was_fastest_where_it_was_measured_is_chosen_there() -> None:
    rows = json.loads(TABLE.read_text())
    assert {min(row["cost"].values()) for row in rows} == {1.0}
    for row in rows:
        cost = {Way(way): factor for way, factor in row["cost"].items()}
        assert set(cost) == set(Way)
        sizes = (row[size] for size in ("tokens", "experts", "rank", "top_k", "width"))
        assert cost[choose(*sizes)] == 1.0


def test_the_gate_is_the_softmax_of_the_design() -> None:
    torch.manual_seed(0)
    gate = Gate(GateConfig(num_task_adapters=5, top_k=2, temperature=0.3), 3, 16, seed=4)
    with torch.no_grad():
        gate.weight.mul_(50)
    hidden = torch.randn(11, 16)
    probabilities = gate.probabilities(1, hidden)
    logits = hidden.double() @ gate.weight[1].double().T / 0.3
    torch.testing.assert_close(probabilities.double(), logits.softmax(-1), rtol=1e-4, atol=1e-7)
    r = gate.routing(probabilities)
    kept, experts = probabilities.topk(2)
    assert torch.equal(r.experts, experts)
    torch.testing.assert_close(r.weights, kept / kept.sum(-1, keepdim=True))
    assert Gate(GateConfig(num_task_adapters=2, router="shared"), 3, 16).weight.shape == (1, 2, 16)


def test_one_expert_a_token_weighs_one_and_has_the_slope_of_its_log_probability() -> None:
    gate = Gate(GateConfig(num_task_adapters=4, top_k=1), 1, 8, seed=1)
    hidden, target = torch.randn(9, 8), torch.randn(9)
    p = gate.probabilities(0, hidden)
    r = gate.routing(p)
    assert torch.equal(r.weights, torch.ones(9, 1))
    (got,) = torch.autograd.grad((r.weights[:, 0] * target).sum(), gate.weight, retain_graph=True)
    (want,) = torch.autograd.grad((p.max(dim=-1).values.log() * target).sum(), gate.weight)
    torch.testing.assert_close(got, want)


def test_balance_is_one_when_even_and_n_when_all_go_one_way() -> None:
    gate = Gate(GateConfig(num_task_adapters=4, top_k=1), 1, 8)
    one_way = torch.tensor([[1.0, 0, 0, 0]] * 8)
    assert balance_loss(one_way, gate.routing(one_way)).item() == pytest.approx(4.0)
    even = torch.eye(4).repeat(2, 1)
    assert balance_loss(even, gate.routing(even)).item() == pytest.approx(1.0)
