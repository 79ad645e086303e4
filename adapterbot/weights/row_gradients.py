"""Gradients of single rows with respect to an adapter's factors, without holding them. (torch)

A row's gradient is needed only for its product with one direction and for its length. Both follow
from what reaches each site: with y = W x + s·B A x, x (T, in) and δ = ∂ℓ/∂y (T, out) of one row,

    ∂ℓ/∂B = s · δᵀ (x Aᵀ)            ∂ℓ/∂A = s · (δ B)ᵀ x

so a batch of rows takes one backward pass, and a site's gradients (rank × width numbers for each
row) are gone before the next site's are made. Nothing is estimated or projected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapterbot.conversations import Example
from adapterbot.errors import InputError, OurFailure
from adapterbot.weights.adapter import Adapter, LowRank
from adapterbot.weights.families import as_named
from adapterbot.weights.likelihood import answer_nll
from adapterbot.weights.memory import memory_ended

_Result = TypeVar("_Result")


Direction = Mapping[str, tuple[Tensor, Tensor]]
"""Module → (∂/∂A, ∂/∂B), in fp32; shapes (rank, in) and (out, rank)."""

_Take = Callable[[str, Tensor, Tensor, Tensor | None], None]
"""Takes a module's (rows, rank, in) and (rows, out, rank) gradients, and for an embedding which
tokens its columns are."""


def mean_gradient(
    model: nn.Module, adapter: Adapter, rows: Sequence[Example], *, pad: int, tokens: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """The mean of the rows' gradients, with `adapter` attached to `model` and selected; zero
    without rows.

    Args:
        pad: the id that fills short rows.
        tokens: at most so many positions in one pass; halved when memory runs out.

    Raises:
        InputError: a gradient is not finite, or the model passes through a module twice.
        OurFailure: a single row does not fit into the device's memory.
    """
    total = _in_passes(lambda most: _mean(model, adapter, rows, pad=pad, tokens=most), tokens)
    if not all(torch.isfinite(part).all() for pair in total.values() for part in pair):
        raise _not_finite(adapter)
    return total


def _mean(
    model: nn.Module, adapter: Adapter, rows: Sequence[Example], *, pad: int, tokens: int
) -> dict[str, tuple[Tensor, Tensor]]:
    total = {
        module: (torch.zeros(update.a.shape), torch.zeros(update.b.shape))
        for module, update in adapter.updates.items()
    }

    def take(module: str, a: Tensor, b: Tensor, columns: Tensor | None) -> None:
        into_a, into_b = total[module]
        mean_a = a.sum(0).cpu() / len(rows)
        if columns is None:
            into_a += mean_a
        else:
            into_a[:, columns.cpu()] += mean_a
        into_b += b.sum(0).cpu() / len(rows)

    for batch in _batches(rows, tokens):
        _backward(model, adapter, [rows[i] for i in batch], pad, take)
    return total


def scale_to(direction: Direction, length: float) -> None:
    """Gives a direction another length, in place; a negative one turns it around. One without a
    length stays as it is."""
    parts = [part for pair in direction.values() for part in pair]
    norm = float(torch.stack([part.double().norm() for part in parts]).norm())
    for part in parts:
        part.mul_(length / norm if norm else 1.0)


def similarities(
    model: nn.Module,
    adapter: Adapter,
    rows: Sequence[Example],
    direction: Direction,
    *,
    pad: int,
    tokens: int,
) -> tuple[Tensor, Tensor]:
    """Each row's ⟨∇ℓ, direction⟩ and ‖∇ℓ‖, (rows,) each in fp64; `adapter` is selected.

    Raises:
        InputError, OurFailure: as `mean_gradient`.
    """
    products, squares = _in_passes(
        lambda most: _along(model, adapter, rows, direction, pad=pad, tokens=most), tokens
    )
    if not (torch.isfinite(products).all() and torch.isfinite(squares).all()):
        raise _not_finite(adapter)
    return products, squares.sqrt()


class _MixedRowsError(Exception):
    """What enters a site does not tell the rows apart: the model flattens its batch, or shares
    something between its rows. One row at a time it is that row's."""


def _in_passes(compute: Callable[[int], _Result], tokens: int) -> _Result:
    """What `compute` says with at most so many positions in one pass, or with as many as the model
    and the device's memory allow.
    """
    while True:
        try:
            return compute(tokens)
        except _MixedRowsError:
            tokens = 1
        except RuntimeError as error:
            if not memory_ended(error):
                raise
            if tokens == 1:
                raise OurFailure(
                    "the gradients of a single row do not fit into the device's memory",
                    fix="use a larger device, or leave --blame away",
                ) from error
            tokens //= 2
        # Only now, with the failed pass's frames gone, is there memory to give back.
        torch.cuda.empty_cache()


def _along(
    model: nn.Module,
    adapter: Adapter,
    rows: Sequence[Example],
    direction: Direction,
    *,
    pad: int,
    tokens: int,
) -> tuple[Tensor, Tensor]:
    """Products and squares, (rows,) each, added up site by site."""
    products = torch.zeros(len(rows), dtype=torch.float64)
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for batch in _batches(rows, tokens):
        at = torch.tensor(batch)

        def take(
            module: str, a: Tensor, b: Tensor, columns: Tensor | None, at: Tensor = at
        ) -> None:
            along_a, along_b = (part.to(a.device) for part in direction[module])
            if columns is not None:
                along_a = along_a[:, columns]
            product = (a * along_a).sum((1, 2)) + (b * along_b).sum((1, 2))
            products[at] += product.double().cpu()
            squares[at] += (a.square().sum((1, 2)) + b.square().sum((1, 2))).double().cpu()

        _backward(model, adapter, [rows[i] for i in batch], pad, take)
    return products, squares


def _batches(rows: Sequence[Example], tokens: int) -> Iterator[list[int]]:
    """Rows of like length together, at most `tokens` positions but always one row.

    The longest come first, so that memory runs out early or never.
    """
    order = sorted(range(len(rows)), key=lambda i: -rows[i].length)
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * rows[batch[0]].length > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _backward(
    model: nn.Module, adapter: Adapter, rows: Sequence[Example], pad: int, take: _Take
) -> None:
    """One pass forward and back over rows whose losses do not touch each other."""
    with torch.enable_grad(), _watched(model, adapter, len(rows), take):
        nll, _, answers = answer_nll(model, rows, pad)
        # A mean within each row and a sum over rows: so no row's gradient knows of another row.
        loss = (nll.sum(1) / answers.sum(1).to(nll.device)).sum()
        loss.backward()


@contextmanager
def _watched(model: nn.Module, adapter: Adapter, rows: int, take: _Take) -> Iterator[None]:
    """Hands `take` every site's gradients as the backward pass comes by."""
    seen: set[str] = set()

    def hook(name: str, update: LowRank) -> Any:
        def passed(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in seen:
                raise InputError(
                    "is passed through twice, so its gradients are not told apart by row",
                    file=adapter.files.config_shown,
                    field=name,
                    fix="leave --blame away",
                )
            seen.add(name)
            entered = args[0].detach().to(output.device)
            if entered.shape[0] != rows and rows > 1:
                raise _MixedRowsError
            if not output.requires_grad:
                output.requires_grad_()
            output.register_hook(lambda delta: _of_site(name, module, update, entered, delta, take))
            return output

        return passed

    named = as_named(model, adapter.updates)
    handles = [
        named.get_submodule(name).register_forward_hook(hook(name, update))
        for name, update in adapter.updates.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of_site(
    name: str,
    module: nn.Module,
    update: LowRank,
    entered: Tensor,
    delta: Tensor,
    take: _Take,
) -> None:
    """∂/∂A and ∂/∂B of every row, from what entered a site and what came back to it."""
    scale, columns = update.scale, None
    if update.embedding:
        columns, places = entered.unique(return_inverse=True)
        entered = F.one_hot(places, len(columns)).float()
        scale *= float(getattr(module, "embed_scale", 1.0))
    if update.kernel:
        entered, delta = _patches(module, entered), delta.movedim(-len(update.kernel) - 1, -1)
    # Without a dimension for rows (tokens, in) it is one row's.
    rows = len(entered) if entered.dim() > 2 else 1
    x = entered.reshape(rows, -1, entered.shape[-1]).float()
    delta = scale * delta.reshape(rows, -1, delta.shape[-1]).float()
    a, b = (part.to(x.device, torch.float32) for part in (update.a, update.b))
    inner = x @ (a if columns is None else a[:, columns]).T
    take(name, (delta @ b).transpose(1, 2) @ x, delta.transpose(1, 2) @ inner, columns)


def _patches(module: nn.Module, entered: Tensor) -> Tensor:
    """What a convolution multiplies by its kernels: (rows, channels, *places) → (rows, *places,
    channels · kernel), the places those of its output. So it is a matrix at every place."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)  # noqa: S101 its update has a kernel
    sizes = len(module.kernel_size)
    # The one thing that says the same of padding by numbers and by words.
    padded = F.pad(entered, module._reversed_padding_repeated_twice)  # noqa: SLF001
    first = padded.dim() - sizes
    for axis, (size, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
        padded = padded.unfold(first + axis, size, stride)  # its windows become the last axis
    channels = -2 * sizes - 1
    return padded.movedim(channels, -sizes - 1).flatten(-sizes - 1)


def _not_finite(adapter: Adapter) -> InputError:
    return InputError(
        "gives a loss or a gradient that is not finite",
        file=adapter.files.shown,
        fix="leave --blame away, or compute in float32",
    )
