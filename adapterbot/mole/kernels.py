"""One layer of a mixture: Σ_{k∈top-K} p_k s_k B_k A_k x for every token, by four ways. (torch)

All give the same result and the same gradients; which is fastest depends on the shape. `choose`
says so from a measured table (`bench/mole_ways.py` measures it again); on CUDA it is measured when
a shape is first met.

* dense: every expert's update of every token, then weighted. N times the work; the plain reference.
* concatenated: one GEMM with [A₁; …; A_N], the gate folded in between, one GEMM with [B₁ … B_N].
  2·T·R·(in + out) with R = Σ rₖ: best while R is small against the width, and when decoding. All
  but its first GEMM may be one Triton kernel (`weights.expansion`).
* indexed: each expert's own tokens gathered, two small GEMMs, added back. The work of K experts
  only, at the price of moving rows.
* grouped: as indexed, but all experts' GEMMs in one call (`torch.nn.functional.grouped_mm`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property, lru_cache, partial
from math import dist, log2
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterbot.weights.expansion import expand
from adapterbot.weights.fastest import bucket, fastest

TABLE = Path(__file__).with_name("ways.json")
"""The measured costs, of one thread: a row for each shape, each way's over the cheapest one's."""
# Fewer (token, expert) pairs than this are not worth moving rows on a GPU; N·r up to width / that
# is cheaper in full than K experts' pieces.
_DECODING = 256
_CONCATENATED_UP_TO = 8


class Way(StrEnum):
    """How a layer's mixture is computed."""

    DENSE = "dense"
    CONCATENATED = "concatenated"
    INDEXED = "indexed"
    GROUPED = "grouped"


@dataclass(frozen=True)
class ExpertStack:
    """The factors of one module, all experts' side by side.

    Shapes: `a` (R, in), `b` (out, R) with R = Σ rₖ; `ranks` are the rₖ, 0 for an expert that
    leaves the module alone, and `scales` the s_k; `owner` (R,) is the expert that each rank
    belongs to.
    """

    a: Tensor
    b: Tensor
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    owner: Tensor

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """N, the largest rank, and the smaller of in and out."""
        return len(self.ranks), max(self.ranks), min(self.a.shape[1], len(self.b))

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """What a routing's gains depend on."""
        return self.ranks, self.scales, self.a.dtype, self.a.device

    @cached_property
    def groupable(self) -> bool:
        """Whether `grouped_mm` takes it: equal ranks, every row a multiple of 16 bytes. Older
        releases of torch have none."""
        bytes_each = self.a.element_size()
        sizes = (self.ranks[0], self.a.shape[1], len(self.b))
        even = len(set(self.ranks)) == 1 and all(size * bytes_each % 16 == 0 for size in sizes)
        return even and hasattr(F, "grouped_mm")

    def of(self, expert: int) -> slice:
        """The ranks of one expert."""
        start = sum(self.ranks[:expert])
        return slice(start, start + self.ranks[expert])


@dataclass(frozen=True)
class Routing:
    """Which experts each token goes to.

    What a layer's modules make of it is the same for most of them, and made once.

    Shapes: `experts` (tokens, K) integer, `weights` (tokens, K), each row summing to 1.
    """

    experts: Tensor
    weights: Tensor
    _gains: dict[tuple[object, ...], Tensor] = field(default_factory=dict, repr=False)
    _pairs: dict[int, Pairs] = field(default_factory=dict, repr=False)

    def dense(self, n: int) -> Tensor:
        """(tokens, N): the weight of every expert, 0 where it is not among the K."""
        zeros = self.weights.new_zeros(len(self.weights), n)
        return zeros.scatter(1, self.experts, self.weights)

    def gains(self, stack: ExpertStack) -> Tensor:
        """(tokens, R): p_k s_k of the expert that each rank belongs to, in the stack's dtype."""
        known = self._gains.get(stack.kind)
        if known is not None:
            return known
        scales = self.weights.new_tensor(stack.scales)
        made = (self.dense(len(stack.ranks)) * scales)[:, stack.owner].to(stack.a)
        # Not where a gradient is wanted: a checkpointed layer is run twice, and must then do the
        # second time what it did the first.
        if not made.requires_grad:
            self._gains[stack.kind] = made
        return made

    def pairs(self, n: int) -> Pairs:
        """The (token, expert) pairs, sorted by expert."""
        if n not in self._pairs:
            experts, order = self.experts.reshape(-1).sort(stable=True)
            # Nothing here waits for the device, as counting would: a CUDA graph may hold it.
            every = torch.arange(n, device=experts.device)
            ends = torch.searchsorted(experts, every, right=True, out_int32=True)
            self._pairs[n] = Pairs(order // self.experts.shape[1], order, ends)
        return self._pairs[n]

    def pair_gains(self, stack: ExpertStack) -> Tensor:
        """p_k s_k of every pair, in their order, (tokens · K, 1)."""
        scaled = self.weights * self.weights.new_tensor(stack.scales)[self.experts]
        return scaled.reshape(-1)[self.pairs(len(stack.ranks)).order][:, None].to(stack.a)


@dataclass(frozen=True)
class Pairs:
    """Token–expert pairs sorted by expert: each one's token, its place in the routing, and where
    each expert's end."""

    tokens: Tensor
    order: Tensor
    ends: Tensor

    @cached_property
    def bounds(self) -> list[int]:
        """`ends` as numbers: the device is waited for once a layer, not once a module."""
        found: list[int] = self.ends.tolist()
        return found


def mixed(
    output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing, way: Way | None = None
) -> Tensor:
    """`output` + Σ_k p_k s_k B_k A_k x, (tokens, out).

    Args:
        output: (tokens, out), any floating-point dtype; it is not written to.
        x: (tokens, in), in the stack's dtype.
        way: overrides what is chosen; GROUPED falls back to INDEXED where the stack does not allow
            it.
    """
    way = way or _chosen(output, x, stack, routing)
    if way is Way.GROUPED and not stack.groupable:
        way = Way.INDEXED
    return _WAYS[way](output, x, stack, routing)


def _chosen(output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing) -> Way:
    """As `choose`; on CUDA, measured where that is possible."""
    n, rank, width = stack.shape
    k = routing.experts.shape[1]
    supposed = choose(x.shape[0], n, rank, k, width, x.device.type)
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return supposed
    ways = (Way.CONCATENATED, Way.GROUPED) if stack.groupable else (Way.CONCATENATED, Way.INDEXED)
    return fastest(
        ("mixed", bucket(len(x)), k, stack.ranks, x.shape[1], len(stack.b), x.dtype, output.dtype),
        lambda: {way: partial(_WAYS[way], output, x, stack, routing) for way in ways},
        default=supposed,
        device=x.device,
    )


def choose(tokens: int, n: int, rank: int, k: int, width: int, device: str = "cpu") -> Way:
    """The fastest way for a shape.

    On a CPU it is what was fastest at the nearest shape of the measured table, in octaves. On a GPU
    the two GEMMs win while N·r is small against the width, and when decoding.

    Args:
        tokens: rows of x.
        n: experts.
        rank: of the largest expert.
        k: experts per token.
        width: the smaller of in and out.
        device: its type, as torch calls it.
    """
    if device == "cpu":
        return _nearest(tokens, n, rank, k, width)
    if tokens * k < _DECODING or n * rank <= width // _CONCATENATED_UP_TO:
        return Way.CONCATENATED
    return Way.GROUPED


@lru_cache(maxsize=1024)
def _nearest(*shape: int) -> Way:
    wanted = [log2(max(1, size)) for size in shape]
    _, way = min(_table(), key=lambda row: dist(row[0], wanted))
    return way


@cache
def _table() -> tuple[tuple[tuple[float, ...], Way], ...]:
    """Every measured shape, in octaves, and the way that was fastest there."""
    rows = json.loads(TABLE.read_bytes())
    sizes = ("tokens", "experts", "rank", "top_k", "width")
    return tuple(
        (tuple(log2(row[size]) for size in sizes), Way(min(row["cost"], key=row["cost"].get)))
        for row in rows
    )


def _dense(output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing) -> Tensor:
    weights = routing.dense(len(stack.ranks)) * routing.weights.new_tensor(stack.scales)
    total = x.new_zeros(len(x), len(stack.b))
    for expert in range(len(stack.ranks)):
        ranks = stack.of(expert)
        update = F.linear(F.linear(x, stack.a[ranks]), stack.b[:, ranks])
        total = total + weights[:, expert, None].to(x.dtype) * update
    return output + total.to(output.dtype)


def _concatenated(output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing) -> Tensor:
    return expand(output, F.linear(x, stack.a), stack.b, routing.gains(stack))


def _indexed(output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing) -> Tensor:
    pairs, gains = routing.pairs(len(stack.ranks)), routing.pair_gains(stack)
    total = x.new_zeros(len(x), len(stack.b))
    start = 0
    for expert, end in enumerate(pairs.bounds):
        ranks, mine = stack.of(expert), slice(start, end)
        if start < end and stack.ranks[expert]:
            rows = pairs.tokens[mine]
            u = F.linear(x[rows], stack.a[ranks]) * gains[mine]
            total = total.index_add(0, rows, F.linear(u, stack.b[:, ranks]))
        start = end
    return output + total.to(output.dtype)


def _grouped(output: Tensor, x: Tensor, stack: ExpertStack, routing: Routing) -> Tensor:
    n, rank = len(stack.ranks), stack.ranks[0]
    pairs = routing.pairs(n)
    a = stack.a.view(n, rank, -1).transpose(1, 2)
    b = stack.b.view(len(stack.b), n, rank).permute(1, 2, 0)
    u = F.grouped_mm(x[pairs.tokens], a, offs=pairs.ends) * routing.pair_gains(stack)
    update = F.grouped_mm(u, b, offs=pairs.ends)
    total = x.new_zeros(len(x), len(stack.b)).index_add(0, pairs.tokens, update)
    return output + total.to(output.dtype)


_WAYS: dict[Way, Callable[[Tensor, Tensor, ExpertStack, Routing], Tensor]] = {
    Way.DENSE: _dense,
    Way.CONCATENATED: _concatenated,
    Way.INDEXED: _indexed,
    Way.GROUPED: _grouped,
}
