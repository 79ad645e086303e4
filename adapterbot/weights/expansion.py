"""y + b ⊙ ( B ( g ⊙ u ) ): the second half of the house's equation, in one call. (torch)

The plain way takes up to four kernels: g's multiplication, a GEMM, b's multiplication with the
addition. On CUDA `fused_kernel` does all of it in one; which of them and of its tiles is fastest
is measured on the device itself, once per shape.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import cache, lru_cache, partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from adapterbot.weights.fastest import bucket, fastest


class Kernel(StrEnum):
    """By what an expansion is computed."""

    EAGER = "eager"
    FUSED = "fused"


_asked: ContextVar[Kernel | None] = ContextVar("kernel", default=None)
# Ampere: the first with bf16 in its tensor cores, and with the shared memory that the tiles take.
_CAPABILITY = (8, 0)
# Not fp32: Triton has no tensor-core product of its precision, and cuBLAS is good at it.
_FUSED_DTYPES = (torch.float16, torch.bfloat16)


@contextmanager
def computed_by(kernel: Kernel) -> Iterator[None]:
    """Overrides, inside, what is measured to be fastest. FUSED falls back to EAGER where the fused
    kernel does not serve: away from CUDA, in fp32, where a gradient is wanted, while torch
    compiles."""
    token = _asked.set(kernel)
    try:
        yield
    finally:
        _asked.reset(token)


def expand(
    output: Tensor,
    u: Tensor,
    b: Tensor,
    g: float | Tensor,
    out_gain: Tensor | None = None,
    *,
    spent: bool = False,
) -> Tensor:
    """`output` + b ⊙ (B (g ⊙ u)).

    Args:
        output: (…, out), any floating-point dtype; it is not written to unless `spent`.
        u: (…, R), in the dtype of `b`.
        b: (out, R).
        g: one factor for all ranks, or a tensor that broadcasts to `u`.
        out_gain: the equation's b, a tensor that broadcasts to `output`; None for ones.
        spent: nobody else wants `output`, nor a gradient: it may become the sum itself.
    """
    if not isinstance(g, Tensor) or not _serves(output, u, b, g, out_gain):
        return expand_eagerly(output, u, b, g, out_gain, spent=spent)
    asked = _asked.get()
    if asked is Kernel.EAGER:
        return expand_eagerly(output, u, b, g, out_gain, spent=spent)
    from adapterbot.weights import fused_kernel

    tokens = u.numel() // u.shape[-1]
    fused = partial(fused_kernel.expand, output, u, b, g, out_gain)
    some = fused_kernel.fitting(tokens, u.shape[-1])
    tiles = fastest(
        ("expand", asked, bucket(tokens), *b.shape, b.dtype, output.dtype, out_gain is None),
        lambda: {
            **{tiles: partial(fused, tiles) for tiles in some},
            # Not in place, which more calls than one would add up.
            **({} if asked else {None: partial(expand_eagerly, output, u, b, g, out_gain)}),
        },
        default=some[0] if asked else None,
        device=u.device,
    )
    if tiles is None:
        return expand_eagerly(output, u, b, g, out_gain, spent=spent)
    return fused(tiles)


def expand_eagerly(
    output: Tensor,
    u: Tensor,
    b: Tensor,
    g: float | Tensor,
    out_gain: Tensor | None = None,
    *,
    spent: bool = False,
) -> Tensor:
    """As `expand`, in torch's own operations."""
    alpha = 1.0
    if isinstance(g, Tensor):
        u = u * g
    else:
        alpha = g
    if out_gain is None and output.dtype == b.dtype:
        # One kernel multiplies, scales and adds; in place, nothing is copied before.
        if spent and output.is_contiguous():
            output.view(-1, output.shape[-1]).addmm_(u.reshape(-1, u.shape[-1]), b.t(), alpha=alpha)
            return output
        if output.dim() == 2:
            return torch.addmm(output, u, b.t(), alpha=alpha)
        flat = output.reshape(-1, output.shape[-1])
        return torch.addmm(flat, u.reshape(-1, u.shape[-1]), b.t(), alpha=alpha).view(output.shape)
    update = F.linear(u, b).to(output.dtype)
    if out_gain is not None:
        return torch.addcmul(output, update, out_gain, value=alpha)
    return torch.add(output, update, alpha=alpha)


def _serves(output: Tensor, u: Tensor, b: Tensor, g: Tensor, out_gain: Tensor | None) -> bool:
    """Whether the fused kernel computes this."""
    if not _able(u.device) or torch.compiler.is_compiling():
        return False  # torch's compiler makes kernels of its own of what surrounds a GEMM
    gains = [g] if out_gain is None else [g, out_gain]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (output, u, b, *gains)):
        return False
    return (
        u.numel() > 0
        and u.dtype == b.dtype
        and b.dtype in _FUSED_DTYPES
        and output.is_contiguous()
        and u.is_contiguous()
        and all(tensor.stride(-1) == 1 for tensor in (b, *gains))
        and _by_rows(g.shape, u.shape)
        and (out_gain is None or _by_rows(out_gain.shape, output.shape))
    )


@lru_cache  # a pass asks the same of hundreds of layers
def _by_rows(gain: torch.Size, values: torch.Size) -> bool:
    """Whether each row of a gain is for tokens that follow one another, and is as wide as they are.

    A gain may broadcast otherwise, (1, tokens, R) to (rows, tokens, R) for one; torch does that.
    """
    if gain[-1] != values[-1]:
        return False
    lead, ahead = gain[:-1], values[:-1]
    if lead == ahead or all(size == 1 for size in lead):
        return True
    return len(lead) == len(ahead) and lead[0] == ahead[0] and all(size == 1 for size in lead[1:])


@cache
def _able(device: torch.device) -> bool:
    """Whether Triton serves a device: a GPU that is new enough, or the CPU for its interpreter."""
    if find_spec("triton") is None:
        return False
    if device.type == "cuda":
        return bool(torch.cuda.get_device_capability(device) >= _CAPABILITY)
    return os.environ.get("TRITON_INTERPRET") == "1"
