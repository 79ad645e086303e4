"""Quantiles and tails of the three distributions we need, without scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NORMAL = NormalDist()


def normal_cdf(z: float) -> float:
    """Φ(z)."""
    return _NORMAL.cdf(z)


def normal_quantile(p: float) -> float:
    """Φ⁻¹(p) for 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def student_quantile(p: float, df: int) -> float:
    """The p-quantile of Student's t with `df` ≥ 1 degrees of freedom, 0 < p < 1.

    G. W. Hill, "Algorithm 396: Student's t-quantiles", CACM 13(10), 1970: closed forms for one and
    two degrees of freedom, asymptotic expansions otherwise (relative error below 1e-4 from df = 3
    on and below 1e-6 from df = 9 on, held by a test against scipy).
    """
    if p == 0.5:
        return 0.0
    tail = 2 * min(p, 1 - p)
    if df == 1:
        size = 1 / math.tan(tail * math.pi / 2)
    elif df == 2:
        size = math.sqrt(2 / (tail * (2 - tail)) - 2)
    else:
        size = _hill(tail, df)
    return math.copysign(size, p - 0.5)


def _hill(tail: float, df: int) -> float:
    """Algorithm 396 for a two-sided tail; names are the paper's."""
    a = 1 / (df - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * df
    y = (d * tail) ** (2 / df)
    if y > 0.05 + a:
        x = normal_quantile(tail / 2)
        y = x * x
        if df < 5:
            c += 0.3 * (df - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        inner = ((df + 6) / (df * y) - 0.089 * d - 0.822) * (df + 2) * 3
        y = ((1 / inner + 0.5 / (df + 4)) * y - 1) * (df + 1) / (df + 2) + 1 / y
    return math.sqrt(df * y)


def log_factorials(n: int) -> FloatArray:
    """Log-factorials log k! for k = 0…n at least, as one table that grows by doubling."""
    return _log_factorials(max(n, 1).bit_length())


@lru_cache(maxsize=32)
def _log_factorials(bits: int) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**bits, dtype=np.float64)))])


def binomial_pmf(counts: IntArray, n: int, p: float) -> FloatArray:
    """P(X = k) for X ~ Binomial(n, p) at every k of `counts`, 0 ≤ k ≤ n."""
    if p in (0.0, 1.0):
        return np.where(counts == round(n * p), 1.0, 0.0)
    logs = log_factorials(n)
    log_pmf = (
        logs[n]
        - logs[counts]
        - logs[n - counts]
        + counts * math.log(p)
        + (n - counts) * math.log1p(-p)
    )
    pmf: FloatArray = np.exp(log_pmf)
    return pmf
