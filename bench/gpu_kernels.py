"""On a GPU: what a bank's users and a mixture's experts add to one linear layer in bf16.

Calls are replayed as a CUDA graph over layers with weights of their own, which do not fit into the
cache together. What is added is the difference to the bare layers in the same run. The floor of
two kernels is two bare GEMMs: x Aᵀ, and y + u Bᵀ. Without CUDA there is nothing to measure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterbot.mole.kernels import ExpertStack, Routing, Way, mixed
from adapterbot.weights.expansion import Kernel, computed_by
from adapterbot.weights.site import Live, Site
from bench.figures import Figure, median

DECODE_FLOOR = 1.5  # µs, of the design's anchors, for d 4096 and rank 256 on an H200
ROUNDS = 20
TOP_K = 2


@dataclass(frozen=True)
class Setting:
    """Rows of a batch, tokens of each, width in and out, ranks of all experts or of the bank."""

    rows: int
    tokens: int
    width: int
    rank: int
    experts: int = 0
    layers: int = 16

    def __str__(self) -> str:
        kind = f"{self.experts} experts × r {self.rank // self.experts}" if self.experts else ""
        return f"d {self.width}, {self.rows} rows × {self.tokens} tokens, " + (
            kind or f"VeRA r {self.rank}, every row its own user"
        )


DECODE = Setting(rows=256, tokens=1, width=4096, rank=256)
PREFILL = Setting(rows=16, tokens=512, width=4096, rank=256)
MIXTURE = Setting(rows=16, tokens=512, width=4096, rank=128, experts=8)


def microseconds(run: Callable[[int], object], setting: Setting, device: torch.device) -> float:
    """Of one layer: a median over rounds through all of them. `run` is given a layer's number."""

    def through() -> None:
        for layer in range(setting.layers):
            run(layer)

    through()  # what is measured and compiled at first sight, before anything is captured
    if device.type != "cuda":
        started = time.perf_counter()
        through()
        return 1e6 * (time.perf_counter() - started) / setting.layers
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        through()
    taken = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(1e3 * begin.elapsed_time(end) / setting.layers)
    return median(taken)


def added(setting: Setting, device: torch.device) -> dict[str, float]:
    """Microseconds: of the bare layer, of the two bare GEMMs, and what ours adds by each kernel."""
    random = partial(torch.randn, device=device, dtype=torch.bfloat16)
    width, rank = setting.width, setting.rank
    layers = [
        nn.Linear(width, width, bias=False, device=device, dtype=torch.bfloat16)
        for _ in range(setting.layers)
    ]
    x = random(setting.rows, setting.tokens, width)
    factors = [(random(rank, width), random(width, rank)) for _ in layers]
    made = [layer(x) for layer in layers]

    def two_gemms(layer: int) -> Tensor:
        a, b = factors[layer]
        u = F.linear(x, a).view(-1, rank)
        return torch.addmm(made[layer].view(-1, width), u, b.t())

    def bare(layer: int) -> Any:
        return layers[layer](x)

    found = {
        name: microseconds(run, setting, device)
        for name, run in (("bare", bare), ("floor", two_gemms))
    }
    with_ours = _mixture if setting.experts else _bank
    run = with_ours(setting, layers, factors, x)
    for kernel in (None, *Kernel):
        with computed_by(kernel) if kernel else nullcontext():
            found[kernel or "chosen"] = microseconds(run, setting, device) - found["bare"]
    return found


Run = Callable[[int], object]
Factors = list[tuple[Tensor, Tensor]]


def _bank(setting: Setting, layers: list[nn.Linear], factors: Factors, x: Tensor) -> Run:
    """Every layer a site on which each row has its own Λ_d and Λ_b."""
    for layer, (a, b) in zip(layers, factors, strict=True):
        gains = torch.randn(setting.rows, setting.rank + setting.width).to(x)
        inner, outer = gains.split((setting.rank, setting.width), dim=1)
        Site("layer", layer).live = Live(a, b, inner, outer)
    return lambda layer: layers[layer](x)


def _mixture(setting: Setting, layers: list[nn.Linear], factors: Factors, x: Tensor) -> Run:
    """Every layer's output with the experts' updates of each token onto it."""
    rank = setting.rank // setting.experts
    owner = torch.arange(setting.experts, device=x.device).repeat_interleave(rank)
    ranks, scales = (rank,) * setting.experts, (1.0,) * setting.experts
    stacks = [ExpertStack(a, b, ranks, scales, owner) for a, b in factors]
    flat = x.view(-1, setting.width)
    kept, experts = torch.randn(len(flat), setting.experts).softmax(-1).topk(TOP_K)
    kept, experts = kept.to(x.device), experts.to(x.device)
    # The modules of a decoder layer share its routing, so here all layers do.
    routing = Routing(experts, kept / kept.sum(-1, keepdim=True))
    return lambda layer: mixed(layers[layer](flat), flat, stacks[layer], routing, Way.CONCATENATED)


def figure(name: str, setting: Setting, device: torch.device, most: float, floor: float) -> Figure:
    """What ours adds, against `most` times the floor; a floor of 0 is that of the two GEMMs."""
    found = added(setting, device)
    floor = floor or found["floor"]
    shown = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Figure(
        name=f"GPU: {name}, added to one layer",
        setting=f"{shown}, bf16, {setting}; the bare layer {found['bare']:.1f} µs, eager adds"
        f" {found[Kernel.EAGER]:.1f}, the fused kernel {found[Kernel.FUSED]:.1f}, two bare GEMMs"
        f" {found['floor']:.1f}",
        ours=f"{found['chosen']:.1f} µs",
        other=f"asked ≤ {most:g} × {floor:.1f} µs",
        ratio=found["chosen"] / (most * floor),
    )


def figures(
    device: torch.device,
    decode: Setting = DECODE,
    prefill: Setting = PREFILL,
    mixture: Setting = MIXTURE,
) -> list[Figure]:
    """All three settings."""
    with torch.inference_mode():
        return [
            figure("a bank when decoding", decode, device, 2.0, DECODE_FLOOR),
            figure("a bank at prefill", prefill, device, 1.3, 0.0),
            figure("a mixture at prefill", mixture, device, 1.5, 0.0),
        ]


def measure() -> list[Figure]:
    """On the GPU, where there is one."""
    if not torch.cuda.is_available():
        print("bench gpu_kernels: skipped, there is no CUDA device here", file=sys.stderr)
        return []
    # Another bench's engine may have asked for it, and then nothing is chosen by measuring.
    torch.use_deterministic_algorithms(False)
    return figures(torch.device("cuda"))
