"""Strategies that look at single entries of ΔW: TIES, DARE and pruning by magnitude. (torch)

A module's ΔW is formed densely, once for all adapters and in blocks of rows that stay in the
processor's cache; what becomes of it is its best low-rank approximation.

Sources: TIES, arXiv 2306.01708; DARE, 2311.03099.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from adapterbot.merge.names import Strategy
from adapterbot.weights.adapter import LowRank

Terms = Sequence[tuple[float, LowRank]]

_BLOCK = 256 * 1024  # entries of one ΔW that are formed at once: 1 MiB
_SAMPLE = 64 * 1024  # entries that a threshold is guessed from,
_MARGIN = 0.01  # and how far off the guess may be: five of its standard deviations
_EXACT = 1024  # up to this many rows or columns nothing is gained by projecting
_OVERSAMPLED = 16
_PASSES = 3


def blended(
    strategy: Strategy,
    terms: Terms,
    density: float,
    sources: Sequence[torch.Generator],
    weight: float,
) -> tuple[Tensor, float]:
    """The merged ΔW of one module, dense, and its ‖·‖².

    Args:
        terms: (w, ΔW) pairs of the module, at least one.
        density: the share of each ΔW's entries that is kept.
        sources: for every term, of what DARE drops.
        weight: Σ|w| over all adapters, those that leave the module alone among them.

    Returns: (out, in) fp32.
    """
    first = terms[0][1]
    dense = torch.empty(first.b.shape[0], first.a.shape[1], dtype=torch.float32)
    thins = [
        (abs(w), a, b, _thinning(strategy, a, b, density, source))
        for (w, _), (a, b), source in zip(terms, map(factors, terms), sources, strict=True)
    ]
    size = 0.0
    ties = strategy in (Strategy.TIES, Strategy.DARE_TIES)
    for rows in _blocks(*dense.shape):
        block = dense[rows]
        election = _Election(block, weight) if ties else _Sum(block)
        for own, a, b, thin in thins:
            election.add(thin(b[rows] @ a), own)
        election.close()
        size += float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
    return dense, size


def best_approximation(dense: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) in fp64 with B·A the best approximation of `dense`.

    Its leading directions are eigenvectors of the smaller Gram matrix, in fp64. A large matrix is
    projected on few directions first, found by a random start and subspace iterations (Halko,
    Martinsson & Tropp 2011, algorithm 4.4).
    """
    if len(dense) > dense.shape[1]:
        a, b = best_approximation(dense.T, rank)
        return b.T, a.T
    basis: Tensor | None = None
    target = dense
    if len(dense) > _EXACT and rank + _OVERSAMPLED < len(dense) // 4:
        source = torch.Generator().manual_seed(0)
        start = torch.randn(dense.shape[1], rank + _OVERSAMPLED, generator=source)
        basis = torch.linalg.qr(dense @ start).Q
        for _ in range(_PASSES):
            basis = torch.linalg.qr(dense @ torch.linalg.qr(dense.T @ basis).Q).Q
        target = basis.T @ dense
    wide = target.double()
    u = torch.linalg.eigh(wide @ wide.T).eigenvectors[:, -rank:]
    a = u.T @ wide  # row i has length σᵢ
    root = torch.linalg.vector_norm(a, dim=1).sqrt().clamp_(min=torch.finfo(a.dtype).tiny)
    return a / root[:, None], (u if basis is None else basis.double() @ u) * root


class _Sum:
    """One block of Σ parts, written into `block`."""

    def __init__(self, block: Tensor) -> None:
        self._total = block.zero_()

    def add(self, part: Tensor, _: float) -> None:
        self._total += part

    def close(self) -> None:
        """The sum is what is wanted."""


class _Election:
    """One block of TIES §4.2 and §4.3, written into `block`: the sign with the larger total wins,
    and its bearers are averaged.

    Their mean is weighted, and taken times the weight of all adapters: so what all agree on is
    their sum, and weights of 1/N make the paper's mean.
    The positive parts and all parts are summed, so that no part has to be kept.
    """

    def __init__(self, block: Tensor, weight: float) -> None:
        self._block = block
        self._weight = weight
        self._total, self._positive, self._up, self._down, self._scratch = torch.zeros(
            (5, *block.shape)
        )

    def add(self, part: Tensor, weight: float) -> None:
        self._total += part
        self._positive += torch.clamp(part, min=0, out=self._scratch)
        self._up.add_(torch.gt(part, 0, out=self._scratch), alpha=weight)
        self._down.add_(torch.lt(part, 0, out=self._scratch), alpha=weight)

    def close(self) -> None:
        none = torch.finfo(self._total.dtype).tiny
        negative = (self._total - self._positive).div_(self._down.clamp_(min=none))
        positive = self._positive.div_(self._up.clamp_(min=none))
        won = torch.where(self._total > 0, positive, negative)
        torch.mul(won, self._total != 0, out=self._block).mul_(self._weight)


def factors(term: tuple[float, LowRank]) -> tuple[Tensor, Tensor]:
    """A and w·s·B in fp32."""
    weight, update = term
    return update.a.float(), (weight * update.scale * update.b.double()).float()


def _thinning(
    strategy: Strategy, a: Tensor, b: Tensor, density: float, source: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """What leaves `density` of the entries of each block of B·A, blocks in their order."""
    if strategy in (Strategy.DARE_LINEAR, Strategy.DARE_TIES):

        def drop(part: Tensor) -> Tensor:
            keep = torch.rand(part.shape, generator=source) < density
            return part.mul_(keep).div_(density)

        return drop
    least = least_kept(a, b, density)
    # `hardshrink` keeps what is larger, and the least itself stays as well.
    below = float(np.nextafter(np.float32(least), np.float32(-1)))
    return lambda part: torch.nn.functional.hardshrink(part, below)


def least_kept(a: Tensor, b: Tensor, density: float) -> float:
    """The least |entry| of B·A that stays when its `density` largest do (TIES §4.1).

    Exact, without sorting all entries: a sample says between which values it lies, and a pass over
    the entries counts those below and keeps the few between.
    """
    count = len(b) * a.shape[1]
    rank = count - max(1, int(density * count))  # so many are smaller
    if rank == 0:
        return 0.0
    low, high = _bracket(a, b, rank / count) if count > _SAMPLE else (0.0, math.inf)
    while True:
        smaller, between = 0, []
        for rows in _blocks(len(b), a.shape[1]):
            part = (b[rows] @ a).abs_().flatten().numpy()
            smaller += int(np.count_nonzero(part < low))
            between.append(part[np.flatnonzero((part >= low) & (part <= high))])
        values = np.concatenate(between)
        if 0 <= rank - smaller < len(values):
            values.partition(rank - smaller)
            return float(values[rank - smaller])
        low, high = 0.0, math.inf


def _bracket(a: Tensor, b: Tensor, share: float) -> tuple[float, float]:
    """Two values between which the quantile `share` of |B·A| very probably lies."""
    source = torch.Generator().manual_seed(0)
    rows = torch.randint(len(b), (_SAMPLE,), generator=source)
    columns = torch.randint(a.shape[1], (_SAMPLE,), generator=source)
    values = (b[rows] * a.T[columns]).sum(1).abs_().sort().values
    low, high = (int((share + side * _MARGIN) * _SAMPLE) for side in (-1, 1))
    return (
        float(values[low]) if low >= 0 else 0.0,
        float(values[high]) if high < _SAMPLE else math.inf,
    )


def _blocks(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
