"""One module of a base model with low-rank factors on it: the equation that carries the house.

    y = W x + b ⊙ ( B ( g ⊙ ( A x ) ) )                               (design.md §5)

A site knows nothing of adapters or files. Whoever owns it hands it the factors that are live and
their gains; with none live the module's own output passes through untouched, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapterbot.errors import InputError, OurFailure
from adapterbot.weights.expansion import expand


@dataclass(frozen=True)
class Live:
    """What is live on a site.

    Shapes: `a` (R, in) and `b` (out, R), on the module's device and in its compute dtype; for a
    convolution `in` are its input channels times its kernel.

    Attributes:
        g: one factor for all ranks; or (R,), one per rank; or (rows, R), one per rank and batch
            row; or (rows, tokens, R).
        out_gain: the equation's b: None for ones; (out,); (rows, out); or (rows, tokens, out).
    """

    a: Tensor
    b: Tensor
    g: float | Tensor
    out_gain: Tensor | None = None


_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLVE = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


def features(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a module that can carry low-rank factors, None for one that cannot.

    A convolution with groups, dilation or padding other than zeros cannot: PEFT trains its A
    without them, so that what it adds has another shape or means something else.
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    if isinstance(module, _Convolution):
        plain = module.groups == 1 and set(module.dilation) == {1}
        if plain and module.padding_mode == "zeros":
            return module.in_channels * math.prod(module.kernel_size), module.out_channels
    return None


def is_linear(module: nn.Module | None) -> bool:
    """Whether it multiplies by a matrix and does nothing else."""
    return isinstance(module, nn.Linear | Conv1D)


def kernel(module: nn.Module) -> tuple[int, ...]:
    """The kernel of a convolution, () for what is none."""
    return tuple(module.kernel_size) if isinstance(module, _Convolution) else ()


class Site:
    """Adds the live factors to the output of one linear layer, embedding or convolution.

    The module itself is not replaced or renamed: a forward hook adds to its output, so that
    `close` leaves the very same object behind.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.module = module
        self.live: Live | None = None
        hook: Callable[..., Tensor | None] = self._add_projected
        if isinstance(module, nn.Embedding):
            hook = self._add_embedded
        elif isinstance(module, _Convolution):
            hook = self._add_convolved
        self._handle = module.register_forward_hook(hook)

    @property
    def device(self) -> torch.device:
        """Where the module's weight lies, and the factors must lie."""
        return next(self.module.parameters()).device

    def close(self) -> None:
        """Takes the hook off."""
        self._handle.remove()

    def _add_projected(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        live = self.live
        if live is None:
            return None
        if not isinstance(output, Tensor):
            # Llama 4's routers, which all-linear names; under PEFT such an adapter does not run.
            raise InputError(
                f"is a {type(self.module).__name__} in the base model, whose output is no tensor "
                "that an update could be added to",
                field=self.name,
                fix="train without this module: name it in exclude_modules",
            )
        # To its device as well: hooks see what a module was called with, which accelerate moves
        # to where the module is only behind them.
        u = F.linear(args[0].to(live.a), live.a)
        # Its module has made the output for its caller alone; a gradient may still want it.
        return self._expand(live, u, output, spent=not torch.is_grad_enabled())

    def _add_embedded(self, _: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        live = self.live
        if live is None:
            return None
        # A x for a one-hot x is a column of A.
        u = F.embedding(args[0].to(live.a.device), live.a.t())
        # Gemma's embedding multiplies by √width inside the module; the update takes part in that.
        scale = getattr(self.module, "embed_scale", None)
        return self._expand(live, u if scale is None else u * scale, output)

    def _add_convolved(
        self, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> Tensor | None:
        """A is a convolution of the module's own stride and padding, B one with a kernel of ones:
        a matrix at every place."""
        live = self.live
        if live is None:
            return None
        assert isinstance(module, _Convolution)  # noqa: S101 hooked on one
        a = live.a.view(len(live.a), module.in_channels, *module.kernel_size)
        convolve = _CONVOLVE[type(module)]
        u = convolve(args[0].to(a.dtype), a, None, module.stride, module.padding)
        channels = -len(module.kernel_size) - 1
        added = self._expand(live, u.movedim(channels, -1), output.movedim(channels, -1))
        return added.movedim(-1, channels).contiguous()

    def _expand(self, live: Live, u: Tensor, output: Tensor, *, spent: bool = False) -> Tensor:
        """`output` + b ⊙ (B (g ⊙ u)); u (rows, …, R), output (rows, …, out)."""
        g, out_gain = live.g, live.out_gain
        return expand(
            output,
            u,
            live.b,
            self._aligned(g, u) if isinstance(g, Tensor) else g,
            self._aligned(out_gain, output) if out_gain is not None else None,
            spent=spent,
        )

    def _aligned(self, gain: Tensor, values: Tensor) -> Tensor:
        """`gain` shaped so that it multiplies `values` row by row and never broadcasts a row."""
        if gain.dim() == 1 or gain.dim() == values.dim():
            wanted = gain.shape[:-1]
        else:
            wanted = gain.shape[:1]
            gain = gain.view(gain.shape[0], *[1] * (values.dim() - 2), gain.shape[1])
        if tuple(values.shape[: len(wanted)]) != tuple(wanted):
            raise OurFailure(
                f"{self.name} sees {tuple(values.shape[:-1])} rows, but gains were set for"
                f" {tuple(wanted)}: this model flattens its batch",
                fix="name as many rows as there are; under such a model, one adapter at a time",
            )
        return gain
