"""Deltas and the verdict on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from adapterbot.records.base import Count, Finite, Line, Name, Probability, Record
from adapterbot.records.scores import Direction, Unit


class Interval(Record):
    """A two-sided confidence interval, `level` in (0, 1)."""

    low: Finite
    high: Finite
    level: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low must not exceed high")
        return self


FEWEST = 10
"""Fewer independent units (samples, or clusters of them) than this decide nothing."""


class Comparison(StrEnum):
    """Named outcomes of comparing two score arrays; nothing becomes 0.0 silently."""

    COMPARED = "compared"
    IDENTICAL = "identical"  # every paired difference is exactly zero
    TOO_FEW = "too_few"  # fewer than `FEWEST` units: figures are shown, nothing is decided
    EMPTY = "empty"  # no pair at all
    INCOMPLETE = "incomplete"  # a sample is missing or not finite on one side


def metric_name(task: str, slice_: str | None) -> str:
    """The name a reader knows a metric by: its task's, and its slice's where it is one of that."""
    return f"{task} [{slice_}]" if slice_ else task


class MetricDelta(Record):
    """Baseline against candidate on one metric (or one slice of it).

    All figures are in the metric's own units. `change` is candidate − baseline; `harm` is the
    same change oriented so that positive is worse. `interval` is for `change`.
    `harm_low` and `harm_high` are the one-sided bounds that decide, at the level Holm left.
    """

    task: Name
    slice: Name | None = None
    scorer: Name
    direction: Direction
    unit: Unit = Unit.FRACTION
    outcome: Comparison
    n: Count
    baseline: Finite | None = None
    candidate: Finite | None = None
    change: Finite | None = None
    interval: Interval | None = None
    p_worse: Probability | None = None
    p_better: Probability | None = None
    p_holm: Probability | None = None
    q_value: Probability | None = None
    effect_size: Finite | None = None
    harm_low: Finite | None = None
    harm_high: Finite | None = None
    min_detectable: Finite | None = None
    samples_needed: Count | None = None
    note: Line = ""

    @property
    def harm(self) -> float | None:
        """Change oriented so that positive means worse."""
        return None if self.change is None else self.direction.worse * self.change

    @property
    def metric(self) -> str:
        """The name a reader knows it by."""
        return metric_name(self.task, self.slice)


class Standing(StrEnum):
    """Where one metric stands."""

    REGRESSED = "regressed"
    IMPROVED = "improved"
    OK = "ok"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not_judged"
    INFORMATIVE = "informative"  # shown, never gated


class MetricVerdict(Record):
    """A delta with the policy it was held against and the outcome in words."""

    delta: MetricDelta
    standing: Standing
    gated: bool
    margin: Finite
    least_effect: Finite
    reason: Line


class Outcome(StrEnum):
    """The one word in the headline."""

    PASSED = "passed"
    REGRESSED = "regressed"
    INCONCLUSIVE = "inconclusive"
    DRIFT = "drift"
    NOT_JUDGED = "not_judged"


class Verdict(Record):
    """What the gate says, and why. `fails` decides the exit code (3)."""

    outcome: Outcome
    fails: bool
    reasons: tuple[Line, ...]
