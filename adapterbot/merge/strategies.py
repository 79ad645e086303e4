"""Ways to put the ΔW of one module together. All act on ΔW, never on A and B apart. (torch)

Linear ones stay low-rank and exact. The others (TIES, DARE, pruning) look at single entries of ΔW,
so a module is formed densely, in blocks of rows, one module at a time, and its best low-rank
approximation is kept; how much that loses is measured and told.

Sources: TIES, arXiv 2306.01708; DARE, 2311.03099; slerp, Shoemake 1985.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adapterbot.errors import InputError
from adapterbot.merge.names import SPARSE, Strategy
from adapterbot.weights.adapter import LowRank
from adapterbot.weights.lowrank import combined, inner, norm, recompressed

Terms = Sequence[tuple[float, LowRank]]

_BLOCK = 8 * 1024 * 1024  # entries of ΔW per adapter that are formed at once
_EXACT = 1024  # up to this many rows or columns a dense SVD is cheap
_OVERSAMPLED = 16
_PASSES = 3


@dataclass
class Merger:
    """One strategy; `merger(module, terms)` is what `weights.merging.merge_with` asks for.

    Attributes:
        rank: the most ranks a module may have; None: all of Σ rᵢ.
        density: the share of each ΔW's entries that TIES, DARE and pruning keep.
        seed: of what DARE drops.
        lost: module → (‖ΔW − kept‖², ‖ΔW‖²), filled as modules are computed.
    """

    strategy: Strategy
    rank: int | None = None
    density: float = 0.5
    seed: int = 0
    lost: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, module: str, terms: Terms) -> LowRank:
        if self.strategy in SPARSE:
            return self._sparse(module, terms)
        if self.strategy is Strategy.SLERP:
            terms = _on_the_sphere(terms)
        whole = combined(terms)
        if self.rank is None or whole.rank <= self.rank:
            return whole
        exact = combined(terms, dtype=torch.float64)
        small = recompressed(exact, self.rank)
        size, kept = norm(exact) ** 2, norm(small) ** 2
        self.lost[module] = (max(0.0, size - kept), size)
        return replace(small, a=small.a.to(whole.dtype), b=small.b.to(whole.dtype))

    @property
    def truncation(self) -> float:
        """‖what was lost‖ / ‖ΔW‖ over all modules that were computed."""
        gone, size = (sum(values) for values in zip(*self.lost.values(), strict=True))
        return math.sqrt(gone / size) if size else 0.0

    def _sparse(self, module: str, terms: Terms) -> LowRank:
        first = terms[0][1]
        dense = torch.empty(first.b.shape[0], first.a.shape[1], dtype=torch.float32)
        cut = self._thresholds(terms)
        draws = [self._generator(module, index) for index in range(len(terms))]
        for rows in _blocks(dense.shape):
            parts = []
            for (weight, update), threshold, source in zip(terms, cut, draws, strict=True):
                delta = _rows(update, rows)
                if self.strategy in (Strategy.DARE_LINEAR, Strategy.DARE_TIES):
                    keep = torch.rand(delta.shape, generator=source) < self.density
                    delta = delta * keep / self.density
                else:
                    delta = torch.where(delta.abs() >= threshold, delta, 0.0)
                parts.append(weight * delta)
            stacked = torch.stack(parts)
            ties = self.strategy in (Strategy.TIES, Strategy.DARE_TIES)
            dense[rows] = _elected(stacked) if ties else stacked.sum(0)
        rank = self.rank or min(sum(update.rank for _, update in terms), *dense.shape)
        a, b = _best_approximation(dense, rank)
        size = float(dense.double().square().sum())
        # The factors are orthogonal projections of ΔW, so what they lack is the difference.
        kept = float(((b.T @ b) * (a @ a.T)).sum())
        self.lost[module] = (max(0.0, size - kept), size)
        dtype = combined([(0.0, update) for _, update in terms]).dtype
        return replace(first, a=a.to(dtype), b=b.to(dtype), scale=1.0)

    def _thresholds(self, terms: Terms) -> list[float]:
        """The least |entry| that each ΔW keeps: its `density` largest stay (TIES §4.1)."""
        if self.strategy in (Strategy.DARE_LINEAR, Strategy.DARE_TIES):
            return [0.0] * len(terms)
        found = []
        for _, update in terms:
            entries = torch.empty(math.prod(_size(update)))
            for rows in _blocks(_size(update)):
                part = _rows(update, rows).abs_().flatten()
                entries[rows.start * _size(update)[1] :][: len(part)] = part
            first = len(entries) - max(1, int(self.density * len(entries)))
            sorting = entries.numpy()
            sorting.partition(first)  # in place, and twice as fast as `kthvalue`
            found.append(float(sorting[first]))
        return found

    def _generator(self, module: str, index: int) -> torch.Generator:
        """Of its own for every adapter and module, so that no order of computing matters."""
        text = f"{self.seed}/{index}/{module}".encode()
        number = int.from_bytes(hashlib.sha256(text).digest()[:7], "little")
        return torch.Generator().manual_seed(number)


def check(strategy: Strategy, weights: Sequence[float], rank: int | None, density: float) -> None:
    """Refuses what a strategy cannot do.

    Raises:
        InputError: naming the option.
    """
    if not all(map(math.isfinite, weights)):
        raise InputError("is not finite", field="--weight", fix="give numbers")
    if strategy is Strategy.SVD and rank is None:
        raise InputError("is missing", field="--rank", fix="say to which rank svd should go")
    if not 0 < density <= 1:
        raise InputError(f"is {density}", field="--density", fix="give it above 0 and up to 1")
    if strategy is Strategy.SLERP and (len(weights) != 2 or min(weights) < 0 or not sum(weights)):
        raise InputError(
            "goes between two adapters, with weights that are not negative",
            field="--strategy slerp",
            fix="name two adapters",
        )


def _on_the_sphere(terms: Terms) -> Terms:
    """slerp: sin((1−t)θ)/sin θ · ΔW₁ + sin(tθ)/sin θ · ΔW₂, θ the angle between the two ΔW.

    A module that only one of them has is scaled, and so are two that point the same way.
    """
    if len(terms) != 2:
        return terms
    (w1, one), (w2, two) = terms
    t = w2 / (w1 + w2)
    sizes = norm(one) * norm(two)
    cosine = max(-1.0, min(1.0, inner(one, two) / sizes)) if sizes else 1.0
    theta = math.acos(cosine)
    if math.sin(theta) < 1e-6:
        return [(1 - t, one), (t, two)]
    return [
        (math.sin((1 - t) * theta) / math.sin(theta), one),
        (math.sin(t * theta) / math.sin(theta), two),
    ]


def _elected(parts: Tensor) -> Tensor:
    """TIES §4.2 and §4.3: the sign with the larger total wins, and its bearers are averaged.

    Shapes: (N, rows, columns) weighed updates → (rows, columns).
    """
    sign = parts.sum(0).sign()
    agree = (parts.sign() == sign) & (parts != 0)
    return (parts * agree).sum(0) / agree.sum(0).clamp(min=1)


def _size(update: LowRank) -> tuple[int, int]:
    return update.b.shape[0], update.a.shape[1]


def _rows(update: LowRank, rows: slice) -> Tensor:
    return (update.scale * update.b[rows].double()).float() @ update.a.float()


def _blocks(size: Sequence[int]) -> Iterator[slice]:
    step = max(1, _BLOCK // max(size[1], 1))
    for start in range(0, size[0], step):
        yield slice(start, min(start + step, size[0]))


def _best_approximation(dense: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) in fp64 with B·A the best approximation of `dense`.

    A large matrix is projected on its leading directions first, found by a random start and
    subspace iterations (Halko, Martinsson & Tropp 2011, algorithm 4.4).
    """
    basis: Tensor | None = None
    target = dense
    if min(dense.shape) > _EXACT and rank + _OVERSAMPLED < min(dense.shape) // 4:
        source = torch.Generator().manual_seed(0)
        start = torch.randn(dense.shape[1], rank + _OVERSAMPLED, generator=source)
        basis = torch.linalg.qr(dense @ start).Q
        for _ in range(_PASSES):
            basis = torch.linalg.qr(dense @ torch.linalg.qr(dense.T @ basis).Q).Q
        target = basis.T @ dense
    u, s, v_t = torch.linalg.svd(target.double(), full_matrices=False)
    root = s[:rank].sqrt()
    b = u[:, :rank] * root
    if basis is not None:
        b = basis.double() @ b
    return root[:, None] * v_t[:rank], b
