"""Exact algebra on ΔW = s·B·A, never on A and B apart, and never with a d × d matrix. (torch)

Sums concatenate ranks: Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁s₁B₁ … w_N s_N B_N]·[A₁; …; A_N], exact for any ranks,
scales and signs. Norms, spectra and truncations come from a small core: with QR(B) = Q_b R_b and
QR(Aᵀ) = Q_a R_a, ΔW = Q_b (R_b R_aᵀ) Q_aᵀ, whose singular values are those of the R × R core
(design.md §5). Arithmetic is in fp64; what is stored keeps the inputs' type. Which adapters may be
added, and what becomes of their options, is `weights.merging`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from adapterbot.weights.adapter import LowRank

_EPSILON = 2.0**-52  # of fp64


def combined(
    terms: Sequence[tuple[float, LowRank]], *, dtype: torch.dtype | None = None
) -> LowRank:
    """Σ wᵢ·ΔWᵢ as one update of scale 1, its rank Σ rᵢ over the terms that weigh anything.

    Args:
        terms: (w, ΔW) pairs of one module, at least one.
        dtype: of the result; the terms' own, promoted, when not given.

    Raises:
        ValueError: the terms are of different shape or kind.
    """
    first = terms[0][1]
    for _, update in terms:
        if shape(update) != shape(first) or update.embedding != first.embedding:
            raise ValueError(f"shapes {shape(first)} and {shape(update)} do not add up")
    stored = dtype or reduce(torch.promote_types, (update.dtype for _, update in terms))
    # A merge that weighs an adapter by nothing does not carry its ranks; one term is kept for all.
    live = [(w, u) for w, u in terms if w] or terms[:1]
    parts = [(u.a, w * u.scale * u.b.double()) for w, u in live]
    if stored is torch.float16:  # below 6e-5 it loses digits, and a small weight takes B there
        parts = [_balanced(a.double(), b) for a, b in parts]
    a = torch.cat([a.to(stored) for a, _ in parts])
    b = torch.cat([b.to(stored) for _, b in parts], dim=1)
    return replace(first, a=a, b=b, scale=1.0)


def _balanced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the same product, each rank's of about the same size, by powers of two."""
    ratio = a.abs().amax(1) / b.abs().amax(0)
    root = (ratio.log2() / 2).round().exp2()
    root = torch.where(root.isfinite() & (root > 0), root, 1.0)  # of a rank that is nothing
    return a / root[:, None], b * root


def shape(update: LowRank) -> tuple[int, ...]:
    """The shape of ΔW: (out, in), or (out, in, *kernel) for a convolution."""
    columns = update.a.shape[1]
    inner = columns // torch.Size(update.kernel).numel() if update.kernel else columns
    return (update.b.shape[0], inner, *update.kernel)


def recompressed(
    update: LowRank, rank: int | None = None, *, dtype: torch.dtype | None = None
) -> LowRank:
    """The best approximation of ΔW of at most `rank` (Eckart–Young), scale 1, factors balanced.

    Args:
        rank: the most ranks to keep; None keeps all that stand above rounding, which is exact.
        dtype: of the result; that of `update` when not given.

    Returns: B = Q_b U √S and A = √S Vᵀ Q_aᵀ.
    """
    q_b, core, q_a = _core(update)
    u, s, v_t = torch.linalg.svd(core, full_matrices=False)
    real = int((s > _noise(update)).sum())
    kept = max(1, min(real, rank or real))
    root = s[:kept].sqrt()
    return replace(
        update,
        a=(root[:, None] * (v_t[:kept] @ q_a.T)).to(dtype or update.dtype),
        b=((q_b @ u[:, :kept]) * root).to(dtype or update.dtype),
        scale=1.0,
    )


def singular_values(update: LowRank) -> Tensor:
    """The singular values of ΔW, largest first, (min(R, out, in),) fp64; rounding noise is 0."""
    values = torch.linalg.svdvals(_core_alone(update))
    return torch.where(values > _noise(update), values, 0.0)


def norm(update: LowRank) -> float:
    """‖ΔW‖_F; exactly 0 where nothing is left but rounding."""
    found = float(torch.linalg.matrix_norm(_core_alone(update)))
    return found if found > _noise(update) else 0.0


def inner(one: LowRank, other: LowRank) -> float:
    """⟨ΔW₁, ΔW₂⟩ = s₁s₂ Σ (B₁ᵀB₂) ⊙ (A₁A₂ᵀ), the trace of ΔW₁ᵀΔW₂."""
    b = one.b.double().T @ other.b.double()
    a = one.a.double() @ other.a.double().T
    return one.scale * other.scale * float((b * a).sum())


def effective_rank(values: Tensor) -> float:
    """Exp of the entropy of the normalised singular values (Roy & Vetterli, EUSIPCO 2007).

    Between 0 (for a zero ΔW) and the rank.
    """
    total = float(values.sum())
    if not total:
        return 0.0
    share = values[values > 0] / total
    return float(torch.exp(-(share * share.log()).sum()))


def _core(update: LowRank) -> tuple[Tensor, Tensor, Tensor]:
    """Q_b (out, R), core (R, R) and Q_a (in, R) in fp64, with ΔW = Q_b·core·Q_aᵀ."""
    q_b, r_b = torch.linalg.qr(update.scale * update.b.double())
    q_a, r_a = torch.linalg.qr(update.a.double().T)
    return q_b, r_b @ r_a.T, q_a


def _core_alone(update: LowRank) -> Tensor:
    """The core where nobody asks for Q, which costs as much again as finding R."""
    _, r_b = torch.linalg.qr(update.scale * update.b.double(), mode="r")
    _, r_a = torch.linalg.qr(update.a.double().T, mode="r")
    return r_b @ r_a.T


def _noise(update: LowRank) -> float:
    """What the fp64 product of the factors may be off by: below it, a value is not a value.

    Cancelling ranks leave residues of the size of the parts and not of their sum, so the bound is
    made of the factors' norms.
    """
    parts = float(torch.linalg.matrix_norm(update.b.double())) * abs(update.scale)
    size = parts * float(torch.linalg.matrix_norm(update.a.double()))
    return 4.0 * max(update.rank, 1) * _EPSILON * size
