"""One comparison of 1,000 samples with 10,000 resamples, beside scipy doing the same work.

The work: a sign-flip permutation test, one-sided both ways, and a bootstrap interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from adapterbot import delta
from bench.figures import Figure, median

SAMPLES = 1_000
RESAMPLES = 10_000
TARGET_SECONDS = 0.1
RUNS = 7


def seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """The median of several runs, after one to warm up."""
    work()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def by_scipy(baseline: np.ndarray, candidate: np.ndarray) -> None:
    """The same questions, asked of scipy in its vectorised form."""

    def mean_difference(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.mean(x - y, axis=axis))

    for side in ("greater", "less"):
        stats.permutation_test(
            (candidate, baseline),
            mean_difference,
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=500,
            alternative=side,
        )
    stats.bootstrap((candidate - baseline,), np.mean, n_resamples=RESAMPLES, batch=500)


def measure() -> list[Figure]:
    """Continuous scores, clusters of them, and 0/1 scores."""
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=SAMPLES)
    candidate = baseline + rng.normal(0.02, 0.3, size=SAMPLES)
    clusters = (np.arange(SAMPLES) // 5).tolist()
    right = (rng.random(SAMPLES) < 0.8).astype(float)
    flipped = np.where(rng.random(SAMPLES) < 0.13, 1 - right, right)
    cases: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "continuous scores",
            lambda: delta.compare(baseline, candidate, direction="lower", margin=0.1),
            lambda: by_scipy(baseline, candidate),
        ),
        (
            "continuous scores, clusters of 5, scipy without them",
            lambda: delta.compare(
                baseline, candidate, direction="lower", margin=0.1, clusters=clusters
            ),
            lambda: by_scipy(baseline, candidate),
        ),
        (
            "0/1 scores, scipy by resampling",
            lambda: delta.compare(right, flipped, direction="higher", margin=0.05),
            lambda: by_scipy(right, flipped),
        ),
    ]
    found = []
    for setting, ours, other in cases:
        mine, theirs = seconds(ours), seconds(other, runs=1)
        found.append(
            Figure(
                name="One metric compared",
                setting=f"{SAMPLES:,} samples, {RESAMPLES:,} resamples, {setting}",
                ours=f"{1000 * mine:.0f} ms (target {1000 * TARGET_SECONDS:.0f} ms)",
                other=f"scipy {1000 * theirs:,.0f} ms",
                ratio=mine / theirs,
            )
        )
    return found
