"""The fused kernel against the plain expansion in float64: on a GPU, or on the CPU in a process
whose environment asks for Triton's interpreter. Run by test_fused_kernel.py.

The interpreter truncates to bf16 where a GPU rounds, so bf16 gets twice the error here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapterbot.bank.attached import attach_bank
from adapterbot.mole.kernels import ExpertStack, Routing, Way, mixed
from adapterbot.mole.mixture import Mixture
from adapterbot.weights import fused_kernel, load_adapter
from adapterbot.weights.expansion import Kernel, computed_by, expand, expand_eagerly
from adapterbot.weights.mixture_config import GateConfig
from bench import gpu, gpu_kernels
from tests.bank_worlds import load, vera_bank
from tests.tiny_models import save_adapter, save_base

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
BOUNDS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
ROWS = [(1, 1), (3, 1), (2, 70)]
FEATURES = [(130, 3), (64, 200)]  # out, R: no multiples of any tile, and one that is


def error(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def in_float64(*given: Any) -> Tensor:
    return expand_eagerly(*(t.double() if isinstance(t, Tensor) else t for t in given))


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", list(BOUNDS))
@pytest.mark.parametrize(("rows", "tokens"), ROWS)
@pytest.mark.parametrize(("out", "rank"), FEATURES)
def test_every_tile_is_the_equation(
    dtype: torch.dtype, rows: int, tokens: int, out: int, rank: int
) -> None:
    torch.manual_seed(rows * tokens + out)
    y, u = random(rows, tokens, out, dtype=dtype), random(rows, tokens, rank, dtype=dtype)
    b = random(out + 3, rank, dtype=dtype)[:out]
    # As a bank's: views of one wide row for each user, nobody's in the last.
    wide = random(rows, rank + out + 5, dtype=dtype)
    wide[-1] = 0 if rows > 1 else wide[-1]
    by_row = wide[:, :rank].view(rows, 1, rank)
    outer = wide[:, rank : rank + out].view(rows, 1, out)
    by_token, by_rank = random(rows, tokens, rank, dtype=dtype), random(rank, dtype=dtype)
    before = y.clone()
    for g, out_gain in ((by_row, None), (by_row, outer), (by_token, outer), (by_rank, outer[0, 0])):
        want = in_float64(y, u, b, g, out_gain)
        for tiles in fused_kernel.fitting(rows * tokens, rank):
            got = fused_kernel.expand(y, u, b, g, out_gain, tiles)
            assert got.dtype == dtype
            assert error(got, want) <= BOUNDS[dtype], tiles
            if rows > 1 and g is by_row:
                assert torch.equal(got[-1], y[-1])
    assert torch.equal(y, before)


@pytest.mark.parametrize(
    "shape", [(24,), (1, 1, 24), (3, 1, 24), (3, 5, 24), (1, 5, 24), (5, 24), (3, 1, 1), (1,)]
)
def test_gains_of_every_shape_that_broadcasts(shape: tuple[int, ...]) -> None:
    """Also such as the kernel does not serve: each row of its gains is for tokens that follow one
    another, and as wide as the ranks."""
    torch.manual_seed(0)
    y, u = random(3, 5, 40, dtype=torch.float16), random(3, 5, 24, dtype=torch.float16)
    b, g = random(40, 24, dtype=torch.float16), random(*shape, dtype=torch.float16)
    wide = (*shape[:-1], 40 if shape[-1] == 24 else 1)
    for out_gain in (None, random(*wide, dtype=torch.float16)):
        with computed_by(Kernel.FUSED):
            got = expand(y, u, b, g, out_gain)
        assert error(got, in_float64(y, u, b, g, out_gain)) <= 2e-3


def test_the_output_may_have_a_dtype_of_its_own() -> None:
    y, b = random(3, 40, dtype=torch.float32), random(40, 24, dtype=torch.float16)
    u, g = random(3, 24, dtype=torch.float16), random(3, 24, dtype=torch.float16)
    with computed_by(Kernel.FUSED):
        got = expand(y, u, b, g)
    assert got.dtype == torch.float32
    assert error(got, in_float64(y, u, b, g)) <= 1e-3


def test_where_a_gradient_is_wanted_the_plain_way_is_taken() -> None:
    y, u, b = (random(*shape, dtype=torch.bfloat16) for shape in ((5, 40), (5, 24), (40, 24)))
    g = random(5, 24, dtype=torch.bfloat16).requires_grad_()
    want = expand_eagerly(y, u, b, g)
    with computed_by(Kernel.FUSED):
        got = expand(y, u, b, g)
        assert got.requires_grad
        assert torch.equal(got, want)
        with torch.no_grad():
            assert not torch.equal(expand(y, u, b, g), want)
    with computed_by(Kernel.EAGER), torch.no_grad():
        assert torch.equal(expand(y, u, b, g), want)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("llama", tmp_path_factory.mktemp("base"))


def logits(model: Any, **options: Any) -> Tensor:
    ids = torch.tensor([[3, 4, 5, 6, 7]], device=DEVICE).expand(3, -1)
    with torch.inference_mode():
        return model(input_ids=ids, **options).logits


def test_a_bank_under_a_model(base: Path, tmp_path: Path) -> None:
    vera_bank(base, tmp_path / "bank", 4).close()
    model = load(base).to(DEVICE, torch.bfloat16)
    bare = logits(model)
    with attach_bank(model, tmp_path / "bank") as attached, attached.tenants(["u1", None, "u3"]):
        plain = logits(model)
        with computed_by(Kernel.FUSED):
            fused = logits(model)
    assert torch.equal(fused[1], bare[1])
    assert not torch.equal(fused, plain)
    moved = (plain[::2] - bare[::2]).double().norm()
    assert (fused - plain).double().norm() <= 0.1 * moved


@pytest.mark.parametrize("ranks", [(4, 4, 4), (1, 3, 0, 5)])
@pytest.mark.parametrize("tokens", [1, 19])
def test_a_layer_of_a_mixture(ranks: tuple[int, ...], tokens: int) -> None:
    torch.manual_seed(tokens)
    n, total = len(ranks), sum(ranks)
    stack = ExpertStack(
        a=random(total, 24, dtype=torch.float16),
        b=random(40, total, dtype=torch.float16),
        ranks=ranks,
        scales=tuple(0.5 + i for i in range(n)),
        owner=torch.repeat_interleave(torch.arange(n), torch.tensor(ranks)).to(DEVICE),
    )
    kept, experts = random(tokens, n, dtype=torch.float32).softmax(-1).topk(2)
    routing = Routing(experts, kept / kept.sum(-1, keepdim=True))
    x, y = random(tokens, 24, dtype=torch.float16), random(tokens, 40, dtype=torch.float16)
    double = ExpertStack(stack.a.double(), stack.b.double(), ranks, stack.scales, stack.owner)
    want = mixed(y.double(), x.double(), double, Routing(experts, routing.weights), Way.DENSE)
    with computed_by(Kernel.FUSED):
        got = mixed(y, x, stack, routing, Way.CONCATENATED)
    assert error(got, want) <= 2e-3


def test_a_mixture_under_a_model(base: Path, tmp_path: Path) -> None:
    for seed, rank in enumerate((4, 2)):
        save_adapter(base, tmp_path / str(seed), seed=seed, r=rank, target_modules=["q_proj"])
    experts = {str(seed): load_adapter(tmp_path / str(seed)) for seed in range(2)}
    model = load(base).to(DEVICE, torch.bfloat16)
    bare = logits(model)
    with Mixture(model, experts, GateConfig(num_task_adapters=2, top_k=2)) as mixture:
        mixture.way = Way.CONCATENATED
        mixture.select([True, False, True])
        plain = logits(model)
        with computed_by(Kernel.FUSED):
            fused = logits(model)
    assert torch.equal(fused[1], bare[1])
    moved = (plain[::2] - bare[::2]).double().norm()
    assert 0 < (fused - plain).double().norm() <= 0.1 * moved


def test_the_benches_for_a_gpu_run_through() -> None:
    tiny = {"rows": 2, "width": 32, "rank": 8, "layers": 2}
    found = gpu_kernels.figures(
        DEVICE,
        decode=gpu_kernels.Setting(tokens=1, **tiny),
        prefill=gpu_kernels.Setting(tokens=3, **tiny),
        mixture=gpu_kernels.Setting(tokens=3, experts=4, **tiny),
    )
    assert len(found) == 3
    assert len(gpu.figures(DEVICE.type, {"hidden": 64, "layers": 2}, samples=8)) == 2
