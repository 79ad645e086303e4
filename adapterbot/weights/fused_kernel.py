"""y + b ⊙ ( B ( g ⊙ u ) ) in one Triton kernel: g on the way in, b and y on the way out. (triton)

Imported only where there is a CUDA device, or Triton's interpreter stands in for one: Triton comes
with torch's CUDA builds and with no other.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tiles(NamedTuple):
    """What one program computes, tokens × outputs, in steps over ranks; its warps and stages."""

    tokens: int
    outputs: int
    ranks: int
    warps: int
    stages: int


TILES = (
    Tiles(16, 64, 128, 4, 3),
    Tiles(32, 64, 128, 4, 3),
    Tiles(64, 64, 64, 4, 3),
    Tiles(64, 128, 64, 4, 3),
    Tiles(128, 128, 64, 8, 3),
    Tiles(128, 256, 64, 8, 3),
)
_LEAST = 16  # the shortest side that a tensor core's product may have
# Triton's interpreter has no product of bf16; in fp32 it is the same, and exact.
_BF16 = tl.float32 if os.environ.get("TRITON_INTERPRET") == "1" else tl.bfloat16
_PRODUCT = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: _BF16}


def fitting(tokens: int, ranks: int) -> tuple[Tiles, ...]:
    """The tiles worth trying: none that a whole batch, or all ranks, would fill by less than half.

    At least one; the first is small enough for every device.
    """
    most = max(_LEAST, triton.next_power_of_2(tokens))
    deep = max(_LEAST, triton.next_power_of_2(ranks))
    kept = [tiles for tiles in TILES if tiles.tokens <= most]
    return tuple(tiles._replace(ranks=min(tiles.ranks, deep)) for tiles in kept)


def expand(
    output: Tensor, u: Tensor, b: Tensor, g: Tensor, out_gain: Tensor | None, tiles: Tiles
) -> Tensor:
    """As `expansion.expand`, without gradients.

    Products are of `b`'s dtype and summed in fp32; the sum is rounded once, to `output`'s dtype.

    Shapes: `output` (…, out) and `u` (rows, …, R), contiguous; `b` (out, R); `g` (R,), or
    (rows, …, R) with only ones, or all of u's sizes, in between; `out_gain` likewise. Last
    dimensions are dense.
    """
    made = torch.empty_like(output)
    outputs, ranks = b.shape
    tokens = u.numel() // ranks
    gains, span = _rows_of(g, tokens)
    outer, outer_span = (made, 1) if out_gain is None else _rows_of(out_gain, tokens)
    grid = (triton.cdiv(tokens, tiles.tokens) * triton.cdiv(outputs, tiles.outputs),)
    with torch.cuda.device_of(made):  # Triton launches on the current device, torch on the tensors'
        kernel[grid](
            output,
            u,
            b,
            gains,
            outer,
            made,
            tokens,
            outputs,
            ranks,
            b.stride(0),
            gains.stride(0),
            span,
            outer.stride(0),
            outer_span,
            HAS_OUTER=out_gain is not None,
            PRODUCT=_PRODUCT[b.dtype],
            TOKENS=tiles.tokens,
            OUTPUTS=tiles.outputs,
            RANKS=tiles.ranks,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return made


def _rows_of(gain: Tensor, tokens: int) -> tuple[Tensor, int]:
    """A gain as (rows, width), and how many tokens, one behind the other, share a row."""
    rows = gain.reshape(-1, gain.shape[-1])
    return rows, tokens // len(rows)


@triton.jit(do_not_specialize=["tokens", "g_span", "outer_span"])
def kernel(  # type: ignore[no-untyped-def]
    y,
    u,
    b,
    g,
    outer,
    made,
    tokens,
    outputs,
    ranks,
    b_stride,
    g_stride,
    g_span,
    outer_stride,
    outer_span,
    HAS_OUTER: tl.constexpr,
    PRODUCT: tl.constexpr,
    TOKENS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    RANKS: tl.constexpr,
) -> None:
    """One tile of `made`. A row of `g` serves `g_span` tokens, one of `outer` `outer_span`."""
    across = tl.cdiv(outputs, OUTPUTS)
    program = tl.program_id(0)
    # 64 bits: a batch of long prompts times a wide layer passes 2³¹ numbers.
    rows = ((program // across) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None]
    columns = ((program % across) * OUTPUTS + tl.arange(0, OUTPUTS))[None, :]
    total = tl.zeros((TOKENS, OUTPUTS), tl.float32)
    for start in range(0, ranks, RANKS):
        inner = start + tl.arange(0, RANKS)
        here = (rows < tokens) & (inner[None, :] < ranks)
        narrow = tl.load(u + rows * ranks + inner[None, :], here, 0.0).to(tl.float32)
        gain = tl.load(g + (rows // g_span) * g_stride + inner[None, :], here, 0.0).to(tl.float32)
        there = (columns < outputs) & (inner[:, None] < ranks)
        factor = tl.load(b + columns.to(tl.int64) * b_stride + inner[:, None], there, 0.0)
        scaled = (narrow * gain).to(factor.dtype).to(PRODUCT)
        total = tl.dot(scaled, factor.to(PRODUCT), total, input_precision="ieee")
    inside = (rows < tokens) & (columns < outputs)
    if HAS_OUTER:
        gain = tl.load(outer + (rows // outer_span) * outer_stride + columns, inside, 0.0)
        total *= gain.to(tl.float32)
    place = rows * outputs + columns
    total += tl.load(y + place, inside, 0.0).to(tl.float32)
    tl.store(made + place, total.to(made.dtype.element_ty), inside)
