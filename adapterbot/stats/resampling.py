"""Random signs and resamples, drawn the same way whenever the content is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from adapterbot.stats.distributions import FloatArray

EXACT_UNITS = 16
"""Up to so many units all 2ⁿ sign patterns are counted instead of drawn (65,536)."""

_CHUNK_DRAWS = 200_000  # what fits the second-level cache, measured: larger chunks are 1.5 × slower


def content_generator(units: FloatArray) -> np.random.Generator:
    """A generator seeded with the SHA-256 of `units`, shape (units, …), in canonical order.

    The figures are scaled and rounded to 2⁻²⁰ first: the rounding error of an unrelated constant
    or of another unit of measurement must not change which resamples are drawn.
    """
    scale = np.abs(units).max(axis=0)
    rounded = np.rint(units / np.where(scale > 0, scale, 1.0) * 2**20).astype("<i8")
    digest = hashlib.sha256(repr(rounded.shape).encode() + rounded.tobytes()).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "big")))


def signed_sums(
    columns: FloatArray, draws: int, rng: np.random.Generator
) -> tuple[FloatArray, bool]:
    """Σᵢ sᵢ·columnsᵢ over sign patterns s ∈ {−1, +1}ᴳ.

    Eight units share a table of their 256 signed sums, so a draw costs one random byte and one
    look-up per eight units instead of eight multiplications.

    Args:
        columns: shape (G, k).
        draws: how many patterns where not all are counted.

    Returns:
        The sums, shape (patterns, k), and whether they are all patterns (G ≤ `EXACT_UNITS`).
    """
    units, width = columns.shape
    if units <= EXACT_UNITS:
        return _all_signs(columns), True
    padded = np.zeros((-(-units // 8) * 8, width))
    padded[:units] = columns
    tables = np.einsum("ps,bsk->bpk", _all_signs(np.eye(8)), padded.reshape(-1, 8, width))
    patterns = np.frombuffer(rng.bytes(len(tables) * draws), dtype=np.uint8)
    sums = np.zeros((draws, width))
    for table, pattern in zip(tables, patterns.reshape(len(tables), draws), strict=True):
        sums += np.take(table, pattern, axis=0)
    return sums, False


def _all_signs(columns: FloatArray) -> FloatArray:
    """Signed sums over all 2ᴳ patterns, shape (2ᴳ, k); pattern i has +1 where bit g of i is set."""
    sums = np.zeros((1, columns.shape[1]))
    for row in columns:
        sums = np.concatenate([sums - row, sums + row])
    return sums


def tail_shares(null: FloatArray, observed: float, *, exact: bool) -> tuple[float, float]:
    """P(T ≥ observed) and P(T ≤ observed) under a null distribution symmetric about zero.

    Args:
        null: T over sign patterns, shape (patterns,).
        observed: T of the data.
        exact: whether `null` holds every pattern. If not, each pattern also stands for its
            mirror image (half the noise, and swapping the sides swaps the tails to the digit) and
            the observed pattern counts as one of the draws, so that p is never 0 and the test
            keeps its level (Phipson and Smyth 2010).
    """
    # Sums that are equal on paper differ in the last bits by the order of summation.
    slack = 1e-10 * max(float(np.abs(null).max()), abs(observed))
    at_least = int((null >= observed - slack).sum())
    at_most = int((null <= observed + slack).sum())
    if exact:
        return at_least / len(null), at_most / len(null)
    mirrored_at_least = int((-null >= observed - slack).sum())
    mirrored_at_most = int((-null <= observed + slack).sum())
    total = 2 * len(null) + 1
    return (1 + at_least + mirrored_at_least) / total, (1 + at_most + mirrored_at_most) / total


def resampled_moments(
    values: FloatArray, resamples: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Σ v* and Σ v*² of resamples with replacement, each of shape (resamples,)."""
    sums, squares = np.empty(resamples), np.empty(resamples)
    for rows, drawn in _draws(len(values), resamples, rng):
        picked = np.take(values, drawn, mode="clip")
        sums[rows] = picked.sum(axis=1)
        squares[rows] = np.einsum("ij,ij->i", picked, picked)
    return sums, squares


def resampled_totals(columns: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Σ columns* of resamples of the rows: shape (units, k) to (resamples, k)."""
    units = len(columns)
    across = np.ascontiguousarray(columns.T)
    totals = np.empty((resamples, columns.shape[1]))
    for rows, drawn in _draws(units, resamples, rng):
        count = len(drawn)
        cells = drawn + (np.arange(count, dtype=np.intp) * units)[:, None]
        weights = np.bincount(cells.ravel(), minlength=count * units).reshape(count, units)
        # Not BLAS: its threads cost more than they bring here, and their number could show.
        totals[rows] = np.einsum("ru,ku->rk", weights.astype(np.float64), across)
    return totals


def _draws(
    units: int, resamples: int, rng: np.random.Generator
) -> Iterator[tuple[slice, np.ndarray[tuple[int, int], np.dtype[np.intp]]]]:
    """Chunks of resamples: which rows of the result, and the indices drawn for them."""
    step = max(1, _CHUNK_DRAWS // units)
    dtype = np.uint16 if units <= 2**16 else np.uint32
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, units, size=(count, units), dtype=dtype).astype(np.intp)
        yield slice(start, start + count), drawn
