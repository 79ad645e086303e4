"""Ways to put the ΔW of one module together. All act on ΔW, never on A and B apart. (torch)

Linear ones stay low-rank and exact. The others (TIES, DARE, pruning) look at single entries of ΔW,
so a module is formed densely (`merge.sparse`), one module at a time, and its best low-rank
approximation is kept; how much that loses is measured and told.

Source of slerp: Shoemake 1985.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from adapterbot.errors import InputError
from adapterbot.merge.names import SPARSE, Strategy
from adapterbot.merge.sparse import Terms, best_approximation, blended
from adapterbot.weights.adapter import LowRank
from adapterbot.weights.lowrank import combined, inner, norm, recompressed


@dataclass
class Merger:
    """One strategy; `merger(module, terms)` is what `weights.merging.merge_with` asks for.

    Attributes:
        weight: Σ|wᵢ| over all adapters; those that leave a module alone are not among its terms.
        rank: the most ranks a module may have; None: all of Σ rᵢ.
        density: the share of each ΔW's entries that TIES, DARE and pruning keep.
        seed: of what DARE drops.
        lost: module → (‖ΔW − kept‖², ‖ΔW‖²), filled as modules are computed.
    """

    strategy: Strategy
    weight: float
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
        if self.rank is None:
            return whole
        if whole.rank <= self.rank:
            self.lost[module] = (0.0, norm(whole) ** 2)
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
        sources = [self._generator(module, index) for index in range(len(terms))]
        dense, size = blended(self.strategy, terms, self.density, sources, self.weight)
        rank = self.rank or min(sum(update.rank for _, update in terms), *dense.shape)
        a, b = best_approximation(dense, rank)
        # The factors are orthogonal projections of ΔW, so what they lack is the difference.
        kept = float(((b.T @ b) * (a @ a.T)).sum())
        self.lost[module] = (max(0.0, size - kept), size)
        dtype = combined([(0.0, update) for _, update in terms]).dtype
        return replace(terms[0][1], a=a.to(dtype), b=b.to(dtype), scale=1.0)

    def _generator(self, module: str, index: int) -> torch.Generator:
        """One for each adapter and module, so that the order of computing does not matter."""
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
            fix="name two adapters, and give no weight below 0",
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
