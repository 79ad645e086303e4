"""What every kind of comparison can say about its harm, whatever test stands behind it."""

from __future__ import annotations

from typing import Protocol

from adapterbot.stats.distributions import normal_quantile

POWER = 0.8
"""The power at which a detectable harm and a number of samples are quoted."""


class Effect(Protocol):
    """The harm of a candidate, estimated from paired samples.

    All figures are in the metric's own units except the p-values, `df` and `sizes`.
    """

    @property
    def harm(self) -> float:
        """The estimate: mean paired difference, positive when worse."""

    @property
    def deviation(self) -> float:
        """Standard deviation of one sample's difference; 0 where all differ alike."""

    @property
    def error(self) -> float:
        """Standard error of the estimate, never 0 because too little was seen."""

    @property
    def p_worse(self) -> float:
        """One-sided p-value against "no harm"."""

    @property
    def p_better(self) -> float:
        """One-sided p-value against "no gain"."""

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper one-sided confidence bounds of the harm, each wrong with `alpha`."""

    def detectable(self, alpha: float) -> float | None:
        """The least true harm that a one-sided test at `alpha` finds with `POWER`.

        None where no harm at all could be found.
        """

    def growth(self, distance: float, alpha: float) -> float:
        """How many times as many units tell a harm from a claim so far away, with `POWER`."""

    @property
    def largest(self) -> float | None:
        """The most that one pair can differ by; None where that is not known."""


def normal_growth(error: float, distance: float, alpha: float) -> float:
    """((z(1 − α) + z(POWER)) · SE / d)²."""
    errors = (normal_quantile(1 - alpha) + normal_quantile(POWER)) * error / distance
    return errors * errors


def decisive_bounds(effect: Effect, alpha: float) -> tuple[float, float]:
    """Bounds that exclude zero only where the test at the same `alpha` does.

    Tests and intervals are each chosen for what they do best (exact size, coverage away from
    zero) and may part company by a hair at zero; a decision needs both, so the bound is held back.
    """
    low, high = effect.bounds(alpha)
    if effect.p_worse > alpha:
        low = min(low, 0.0)
    if effect.p_better > alpha:
        high = max(high, 0.0)
    return low, high
