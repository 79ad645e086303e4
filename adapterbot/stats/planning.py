"""How many samples would have settled what this suite left open."""

from __future__ import annotations

import math

from adapterbot.stats.effect import Effect

MOST = 10**9


def samples_to_settle(
    effect: Effect,
    n: int,
    *,
    units: int,
    margin: float,
    least_effect: float,
    alpha: float,
    alpha_worse: float,
) -> int | None:
    """About how many samples would settle the metric with a chance of `POWER`.

    Every n is n₀ times the effect's `growth` for d, the distance between the truth and what must be
    excluded. The truth is first taken to be 0, so d = M for "ok". If the
    suite has that many samples already, the truth is rather what was seen: then the sooner of
    "ok" (d = M − h) and "regressed" (d = h, where h ≥ the least effect).

    Args:
        n: the samples there are now.
        units: the independent ones among them: clusters, or samples on their own.
        margin: M, the harm that is still tolerated.
        least_effect: harm below which nothing is called a regression.
        alpha: level of the upper bound ("ok").
        alpha_worse: level that Holm leaves for the lower bound ("regressed").

    Returns:
        More than `n`; None where no number of samples settles it (margin 0 and no harm).
    """

    def needed(distance: float, level: float) -> float:
        return n * effect.growth(distance, level) if distance > 0 else math.inf

    least = _rule_of_three(effect.largest, margin, alpha) * n / units
    settled = max(needed(margin, alpha), least)
    if settled <= n or margin <= 0:
        regressed = needed(effect.harm, alpha_worse) if effect.harm >= least_effect else math.inf
        settled = min(needed(margin - effect.harm, alpha), regressed)
    if not settled < MOST:
        return None
    return max(n + 1, math.ceil(settled))


def _rule_of_three(largest: float | None, margin: float, alpha: float) -> float:
    """Units without which no upper bound is under M, however alike the sides: 1 − α^(1/G) < M."""
    if largest is None or not 0 < margin < largest:
        return 0.0
    return math.log(alpha) / math.log1p(-margin / largest)
