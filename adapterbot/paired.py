"""Two aligned arrays become a delta, or the name of the reason why they cannot.

Which test and which interval stand behind a delta is decided here and nowhere else:

    0/1 scores, samples on their own    mid-p McNemar, Tango's score interval
    other scores, or clusters           sign-flip permutation, bootstrap-t by cluster
    corpus metrics                      swap permutation, BCa over sufficient statistics
    equal on every sample               no test; at most about 3 in n would have differed

The mathematics is in `stats`, pairing by sample id in `delta`, the decision in `verdict`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.errors import InputError
from adapterbot.records import (
    Comparison,
    Direction,
    Interval,
    MetricDelta,
    ScoreKind,
    TaskResult,
    Unit,
)
from adapterbot.records.deltas import FEWEST
from adapterbot.stats.alignment import LARGEST, align, exact_mean
from adapterbot.stats.corpus import Aggregate, corpus_difference
from adapterbot.stats.distributions import FloatArray
from adapterbot.stats.effect import Effect, decisive_bounds
from adapterbot.stats.means import mean_difference
from adapterbot.stats.planning import samples_to_settle
from adapterbot.stats.proportions import PairedProportions

LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Metric:
    """What was measured. `kind` None asks the scores: binary if all are 0 or 1."""

    task: str
    direction: Direction
    unit: Unit = Unit.FRACTION
    scorer: str = "score"
    slice: str | None = None
    kind: ScoreKind | None = None

    @classmethod
    def of(cls, result: TaskResult, slice_: str | None) -> Metric:
        """What a task measures, of all its samples or of a slice."""
        return cls(
            task=result.task,
            direction=result.direction,
            unit=result.unit,
            scorer=result.scorer,
            slice=slice_,
            kind=result.kind,
        )


@dataclass(frozen=True, eq=False)
class Paired:
    """A delta and what it can still be asked: bounds and power at any level.

    `effect` is None where nothing can be estimated; `units` are the samples that are independent of
    each other, or clusters of samples.
    """

    delta: MetricDelta
    effect: Effect | None
    units: int

    def bounds(self, alpha: float) -> tuple[float, float] | None:
        """One-sided bounds of the harm, in agreement with the test at the same `alpha`.

        None where there is nothing to estimate, or so little that a bound is infinite.
        """
        if self.effect is None:
            return None
        found = decisive_bounds(self.effect, alpha)
        return found if all(map(math.isfinite, found)) else None

    def detectable(self, alpha: float) -> float | None:
        """The least harm that a one-sided test at `alpha` finds with 80 % power."""
        return None if self.effect is None else self.effect.detectable(alpha)

    def samples_to_settle(
        self, *, margin: float, least_effect: float, alpha: float, alpha_worse: float
    ) -> int | None:
        """About how many samples would settle it; see `stats.planning`."""
        if self.effect is None:
            return None
        return samples_to_settle(
            self.effect,
            self.delta.n,
            units=self.units,
            margin=margin,
            least_effect=least_effect,
            alpha=alpha,
            alpha_worse=alpha_worse,
        )


def pair(
    metric: Metric,
    baseline: ArrayLike,
    candidate: ArrayLike,
    *,
    clusters: Sequence[Hashable] | ArrayLike | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Paired:
    """Compare one score per sample; see `delta.compare`.

    Raises:
        InputError: the arrays do not pair up, or the scores contradict the metric's kind.
    """
    rows = align(baseline, candidate, clusters)
    before, after = rows.baseline, rows.candidate
    if metric.kind is None:
        metric = replace(metric, kind=_kind(before, after))
    elif metric.kind is ScoreKind.BINARY and _kind(before, after) is not ScoreKind.BINARY:
        raise InputError(
            "declared binary, but a score is neither 0 nor 1",
            field=metric.task,
            fix="declare its kind as continuous",
        )
    means = (exact_mean(before), exact_mean(after))
    facts = Facts(metric, len(before), rows.units, rows.missing, *means, level)
    if facts.n == 0:
        return facts.described(None, change=None)
    change = after - before
    harm = metric.direction.worse * change
    if not harm.any():
        return facts.alike(1.0 if metric.unit is Unit.FRACTION else float(np.ptp(before)))
    effect: Effect | None
    if metric.kind is ScoreKind.BINARY and rows.clusters is None:
        effect = PairedProportions(facts.n, int((harm > 0).sum()), int((harm < 0).sum()))
    else:
        effect = mean_difference(harm, rows.clusters, resamples=resamples)
    return facts.described(effect, change=exact_mean(change))


def pair_corpus(
    metric: Metric,
    baseline: ArrayLike,
    candidate: ArrayLike,
    aggregate: Aggregate,
    *,
    clusters: Sequence[Hashable] | ArrayLike | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Paired:
    """Compare a metric of the whole corpus.

    Args:
        baseline: additive statistics per sample, shape (n, k); a row with a NaN has none.
        candidate: the same of the candidate, in the same order.
        aggregate: the metric of corpora from their summed statistics, (…, k) to (…).
        clusters, level, resamples: as of `delta.compare`.

    Raises:
        InputError: the arrays do not pair up.
    """
    rows = align(baseline, candidate, clusters, dimensions=2)
    before, after = rows.baseline, rows.candidate
    values = (corpus_value(aggregate, before), corpus_value(aggregate, after))
    facts = Facts(metric, len(before), rows.units, rows.missing, *values, level)
    if facts.n == 0 or values[0] is None or values[1] is None:
        return facts.described(None, change=None)
    if np.array_equal(before, after):
        single = aggregate(before)
        # A metric such as a correlation may have no value on any sample by itself.
        seen = single[np.isfinite(single)]
        spread = float(np.ptp(seen)) if len(seen) else 0.0
        return facts.alike(1.0 if metric.unit is Unit.FRACTION else spread)
    effect = corpus_difference(
        before,
        after,
        aggregate,
        worse_when_higher=metric.direction is Direction.LOWER,
        clusters=rows.clusters,
        resamples=resamples,
    )
    return facts.described(effect, change=values[1] - values[0])


# ---------------------------------------------------------------- from figures to a record


@dataclass(frozen=True)
class Facts:
    """What is known before anything is estimated."""

    metric: Metric
    n: int
    units: int
    missing: int
    baseline: float | None
    candidate: float | None
    level: float

    def alike(self, most: float) -> Paired:
        """No pair differs; had one done so, then by at most `most`."""
        effect = PairedProportions(self.units, 0, 0, scale=most) if most > 0 else None
        return self.described(effect, change=0.0, alike=True)

    def described(
        self, effect: Effect | None, *, change: float | None, alike: bool = False
    ) -> Paired:
        """The record of what was found, with bounds at the unadjusted level."""
        delta = MetricDelta(
            task=self.metric.task,
            slice=self.metric.slice,
            scorer=self.metric.scorer,
            direction=self.metric.direction,
            unit=self.metric.unit,
            outcome=self._outcome(change, alike),
            n=self.n,
            baseline=self.baseline,
            candidate=self.candidate,
            change=change,
            note=self._note(effect, change, alike),
        )
        if alike:
            delta = delta.model_copy(update={"p_worse": 1.0, "p_better": 1.0})
        if effect is None:
            return Paired(delta, None, self.units)
        paired = Paired(delta, effect, self.units)
        alpha = 1 - self.level
        low, high = paired.bounds(alpha) or (None, None)
        figures: dict[str, object] = {
            "interval": self._interval(effect),
            "p_worse": effect.p_worse,
            "p_better": effect.p_better,
            "harm_low": low,
            "harm_high": high,
            "min_detectable": effect.detectable(alpha),
        }
        if effect.deviation > 0 and change is not None:
            figures["effect_size"] = change / effect.deviation
        return replace(paired, delta=delta.model_copy(update=figures))

    def _interval(self, effect: Effect) -> Interval | None:
        low, high = effect.bounds((1 - self.level) / 2)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        if self.metric.direction is Direction.HIGHER:
            low, high = -high, -low
        return Interval(low=low, high=high, level=self.level)

    def _outcome(self, change: float | None, alike: bool) -> Comparison:
        if self.n == 0:
            return Comparison.EMPTY
        if self.missing or change is None:
            return Comparison.INCOMPLETE
        if self.units < FEWEST:
            return Comparison.TOO_FEW
        return Comparison.IDENTICAL if alike else Comparison.COMPARED

    def _note(self, effect: Effect | None, change: float | None, alike: bool) -> str:
        """What a reader must know to read the figures, in one line."""
        total = self.n + self.missing
        parts: list[str] = []
        if self.missing:
            parts.append(f"{self.missing} of {total} samples have no score on at least one side")
        elif self.n == 0:
            parts.append("no samples")
        if self.n and change is None:
            parts.append("the metric is not defined on these samples")
        if self.n and self.units < FEWEST:
            what = "samples" if self.units == self.n else "clusters of samples"
            parts.append(f"only {self.units} {what}: at least {FEWEST} are needed")
        if alike and effect is None:
            parts.append("no score differs, and nothing shows by how much one could")
        elif alike:
            parts.append(f"no score differs on any of {self.n} samples")
        elif effect is None and change is not None and self.units >= FEWEST:
            parts.append("it hangs on a single sample: its error cannot be told")
        elif effect is not None and effect.error == 0:
            parts.append("every sample differs by exactly the same amount")
        return "; ".join(parts)


def _kind(before: FloatArray, after: FloatArray) -> ScoreKind:
    """Binary exactly if every score is 0 or 1."""
    binary = all(np.isin(side, (0.0, 1.0)).all() for side in (before, after))
    return ScoreKind.BINARY if binary else ScoreKind.CONTINUOUS


def corpus_value(aggregate: Aggregate, stats: FloatArray) -> float | None:
    """The metric of a corpus from its samples' statistics, (n, k); None where it has none."""
    if len(stats) == 0:
        return None
    value = float(aggregate(np.array([math.fsum(column) for column in stats.T])))
    return value if abs(value) < LARGEST else None
