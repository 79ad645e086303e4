"""Linear layers that multiply by oneDNN give what torch's own give."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from adapterbot.eval.onednn import IntelLinear, Linear, multiply_by_onednn, of_intel
from tests.programs import python

AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (10,), (300,), (3, 100), (2, 64, 2)])
@pytest.mark.parametrize("kind", [Linear, IntelLinear])
def test_a_product_is_that_of_float64(
    kind: type[Linear], rows: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(96, 128, bias=bias)
    given = torch.randn(*rows[::-1], 96).movedim(0, -2) if len(rows) > 1 else torch.randn(*rows, 96)
    with torch.inference_mode():
        found = layer(given)
        own = [p.double() for p in layer.parameters()]
        want = nn.functional.linear(given.double(), *own)
    assert found.shape == want.shape
    assert (found - want).abs().max() < 1e-5


def test_gradients_flow_through_it() -> None:
    layer = Linear(256, 256)
    given = torch.randn(64, 256, requires_grad=True)
    layer(given).sum().backward()
    assert given.grad is not None
    assert layer.weight.grad is not None


@pytest.mark.skipif(not AVX512, reason="a CPU without AVX-512")
@pytest.mark.parametrize(
    ("intel", "small", "large"), [(False, Linear, Linear), (True, nn.Linear, IntelLinear)]
)
def test_layers_of_fp32_on_the_cpu_stay_the_same_objects(
    intel: bool, small: type, large: type
) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4),
        nn.Linear(1024, 1024),
        nn.Linear(4, 4, dtype=torch.bfloat16),
        nn.Linear(4, 4, device="meta"),
        nn.LayerNorm(4),
    )
    layers = list(model)
    others = [type(layer) for layer in layers[2:]]
    multiply_by_onednn(model, intel=intel)
    assert all(after is before for after, before in zip(model, layers, strict=True))
    assert [type(layer) for layer in model] == [small, large, *others]


@pytest.mark.skipif(not AVX512 or sys.platform != "linux", reason="a CPU without AVX-512")
def test_products_of_many_shapes_hold_little_memory() -> None:
    script = """
import torch
from adapterbot.eval.onednn import multiply_by_onednn
def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
model = torch.nn.Sequential(torch.nn.Linear(256, 384), torch.nn.Linear(384, 256))
multiply_by_onednn(model, intel=False)
with torch.inference_mode():
    model(torch.ones(100, 256))
    before = held()
    for rows in range(101, 401):
        model(torch.ones(rows, 256))
print(held() - before)
"""
    done = python("-c", script, check=True)
    assert int(done.stdout) < 150 * 2**20


def test_nothing_changes_without_avx_512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = nn.Linear(4, 4)
    multiply_by_onednn(layer, intel=False)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize(("maker", "intel"), [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_a_processor_tells_who_made_it(maker: str, intel: bool, tmp_path: Path) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(f"processor\t: 0\nvendor_id\t: {maker}\n", encoding="utf-8")
    assert of_intel(cpu) is intel
