"""Deltas and the policy become a verdict with its reasons. Pure.

With h the harm (positive is worse), M the margin and m the least effect that matters, a gated
metric is

    regressed     if the lower bound of h is above 0 at the level that Holm leaves, and h ≥ m,
                  or if its mean misses the threshold that the suite demands
    improved      if the upper bound is below 0 at the level that Holm leaves, and −h ≥ m
    ok            if the upper bound of h is below M
    inconclusive  otherwise

Calling many metrics "regressed" takes Holm's correction, because one false alarm among them is
one too many. Calling the adapter "passed" takes none: it needs every metric to be ok, and if one
of them is truly M worse, that one is called ok with probability α at most (R. L. Berger,
Technometrics 24, 1982, intersection–union test).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adapterbot.errors import InputError
from adapterbot.paired import Paired
from adapterbot.records import (
    Comparison,
    Direction,
    LockResult,
    LockStatus,
    MetricDelta,
    MetricVerdict,
    Outcome,
    SavedTask,
    Standing,
    Verdict,
)
from adapterbot.stats.multiplicity import Step, benjamini_hochberg, holm
from adapterbot.wording import drifted, reason

if TYPE_CHECKING:
    from adapterbot.config import MetricRule

__all__ = ["MetricPolicy", "judge"]


@dataclass(frozen=True)
class MetricPolicy:
    """What one metric is held against, in its own units.

    Attributes:
        gated: whether it decides, or only informs.
        margin: M, the harm that must be ruled out for the metric to be ok.
        least_effect: m, below which a harm is not called a regression however sure it is.
        threshold: the worst mean that the candidate may have, whatever the baseline has (Soup's
            gates name one).
    """

    gated: bool
    margin: float
    least_effect: float = 0.0
    threshold: float | None = None

    def misses(self, delta: MetricDelta) -> bool:
        """Whether the candidate's mean is on the wrong side of the threshold."""
        if self.threshold is None or delta.candidate is None:
            return False
        if delta.direction is Direction.HIGHER:
            return delta.candidate < self.threshold
        return delta.candidate > self.threshold


def policies(
    tasks: Iterable[SavedTask], rules: Mapping[str, MetricRule]
) -> dict[str, MetricPolicy]:
    """The policy of every metric by its name: the suite's, where no rule of the config differs.

    A rule for `task [slice]` starts from the task's own policy, ungated.

    Raises:
        InputError: a rule names a task that the suite does not have.
    """
    found = {
        task.name: MetricPolicy(task.gated, task.margin, task.least_effect, task.threshold)
        for task in tasks
    }
    own = dict(found)
    for name, rule in rules.items():
        if name in own:
            start = own[name]
        else:
            task = task_of(name, own)
            if task is None:
                raise InputError(
                    "the suite has no such task",
                    field=f"policy.metrics.{name}",
                    fix=f"name one of {', '.join(sorted(own))}",
                )
            start = replace(own[task], gated=False, threshold=None)
        found[name] = replace(
            start,
            gated=start.gated if rule.gated is None else rule.gated,
            margin=start.margin if rule.margin is None else rule.margin,
            least_effect=start.least_effect if rule.least_effect is None else rule.least_effect,
        )
    return found


def task_of(metric: str, tasks: Iterable[str]) -> str | None:
    """The task in `task [slice]`; None where it is none of `tasks`."""
    named = [task for task in tasks if metric.startswith(f"{task} [") and metric.endswith("]")]
    return max(named, key=len, default=None)


# ---------------------------------------------------------------- metric by metric


_UNDECIDED = (Comparison.TOO_FEW, Comparison.EMPTY, Comparison.INCOMPLETE)


@dataclass(frozen=True)
class _Judged:
    """A metric on its way to its verdict. `worse` and `better` are what Holm leaves each side."""

    paired: Paired
    policy: MetricPolicy
    worse: Step | None = None
    better: Step | None = None

    @property
    def decides(self) -> bool:
        """Whether it counts in the family that Holm corrects for."""
        delta = self.paired.delta
        return self.policy.gated and delta.outcome not in _UNDECIDED and delta.p_worse is not None


def judge(
    deltas: Sequence[Paired],
    rules: Mapping[str, MetricPolicy],
    *,
    alpha: float = 0.05,
    fail_on: Collection[str] = (Outcome.REGRESSED,),
) -> tuple[tuple[MetricVerdict, ...], Verdict]:
    """Hold every metric against its policy, and the adapter against all of them.

    Args:
        deltas: from `delta.compare_all`.
        rules: by metric name (`task` or `task [slice]`). A slice without one of its own is held
            against its task's, for information only.
        alpha: the chance of calling anything regressed if nothing changed.
        fail_on: outcomes that fail the gate.

    Returns:
        The metrics in the order given, each delta completed with `p_holm`, `q_value`, and bounds
        and `min_detectable` at the levels that decide; and the verdict.

    Raises:
        InputError: a task has no policy.
    """
    family = _corrected([_Judged(found, _policy(found.delta, rules)) for found in deltas], alpha)
    gated = sum(metric.decides for metric in family)
    tested = [i for i, metric in enumerate(family) if metric.paired.delta.p_worse is not None]
    q_values = dict(
        zip(tested, benjamini_hochberg([_two_sided(family[i]) for i in tested]), strict=True)
    )
    metrics = tuple(
        _verdict(metric, alpha=alpha, gated=gated, q_value=q_values.get(i))
        for i, metric in enumerate(family)
    )
    return metrics, _overall(metrics, fail_on)


def _policy(delta: MetricDelta, rules: Mapping[str, MetricPolicy]) -> MetricPolicy:
    if delta.metric in rules:
        return rules[delta.metric]
    if delta.task not in rules:
        raise InputError("this task has no policy", field=delta.task)
    return replace(rules[delta.task], gated=False, threshold=None)


def _corrected(family: Sequence[_Judged], alpha: float) -> list[_Judged]:
    """The family with what Holm leaves, in either direction, to the metrics that decide."""
    deciding = [i for i, metric in enumerate(family) if metric.decides]
    chosen = [family[i].paired.delta for i in deciding]
    worse = holm([delta.p_worse or 0.0 for delta in chosen], alpha)
    better = holm([delta.p_better or 0.0 for delta in chosen], alpha)
    found = list(family)
    for i, left, right in zip(deciding, worse, better, strict=True):
        found[i] = replace(family[i], worse=left, better=right)
    return found


def _two_sided(metric: _Judged) -> float:
    delta = metric.paired.delta
    return min(1.0, 2 * min(delta.p_worse or 0.0, delta.p_better or 0.0))


def _verdict(metric: _Judged, *, alpha: float, gated: int, q_value: float | None) -> MetricVerdict:
    paired, policy = metric.paired, metric.policy
    level = alpha if metric.worse is None else metric.worse.level
    low, high = paired.bounds(level), paired.bounds(alpha)
    standing = _standing(metric, alpha)
    needed = None
    if standing is Standing.INCONCLUSIVE:
        needed = paired.samples_to_settle(
            margin=policy.margin,
            least_effect=policy.least_effect,
            alpha=alpha,
            alpha_worse=level,
        )
    delta = paired.delta.model_copy(
        update={
            "p_holm": None if metric.worse is None else metric.worse.adjusted,
            "q_value": q_value,
            "harm_low": None if low is None else low[0],
            "harm_high": None if high is None else high[1],
            # What a regression on its own among the others would need: it is tested first.
            "min_detectable": paired.detectable(alpha / gated if metric.decides else alpha),
            "samples_needed": needed,
        }
    )
    return MetricVerdict(
        delta=delta,
        standing=standing,
        gated=policy.gated,
        margin=policy.margin,
        least_effect=policy.least_effect,
        reason=reason(delta, standing, policy.margin, policy.threshold),
    )


def _standing(metric: _Judged, alpha: float) -> Standing:
    paired, policy = metric.paired, metric.policy
    if not policy.gated:
        return Standing.INFORMATIVE
    if not metric.decides:
        return Standing.NOT_JUDGED
    if policy.misses(paired.delta):
        return Standing.REGRESSED
    harm = paired.delta.harm or 0.0
    if _surely(paired, metric.worse, alpha) > 0 and harm >= policy.least_effect:
        return Standing.REGRESSED
    bounds = paired.bounds(alpha)
    if bounds is None or bounds[1] >= policy.margin:
        return Standing.INCONCLUSIVE
    if _surely(paired, metric.better, alpha) < 0 and -harm >= policy.least_effect:
        return Standing.IMPROVED
    return Standing.OK


def _surely(paired: Paired, step: Step | None, alpha: float) -> int:
    """+1 surely worse, −1 surely better, 0 neither, at the level that Holm leaves."""
    if step is None or step.adjusted > alpha:
        return 0
    low, high = paired.bounds(step.level) or (0.0, 0.0)
    return int(low > 0) - int(high < 0)


# ---------------------------------------------------------------- the adapter


_SEVERITY = (
    (Standing.REGRESSED, Outcome.REGRESSED),
    (Standing.NOT_JUDGED, Outcome.NOT_JUDGED),
    (Standing.INCONCLUSIVE, Outcome.INCONCLUSIVE),
)


def _overall(metrics: Sequence[MetricVerdict], fail_on: Collection[str]) -> Verdict:
    """The most severe standing names the outcome; the reasons are in order of severity."""
    outcome = Outcome.PASSED
    reasons: list[str] = []
    for standing, meaning in _SEVERITY:
        lines = [
            # The reason of a metric that was not judged says so already.
            m.reason if standing is Standing.NOT_JUDGED else f"{standing.value}: {m.reason}"
            for m in metrics
            if m.standing is standing
        ]
        if lines and not reasons:
            outcome = meaning
        reasons.extend(lines)
    if not metrics:
        outcome, reasons = Outcome.NOT_JUDGED, ["nothing was measured"]
    elif not reasons:
        gated = sum(metric.gated for metric in metrics)
        within = "1 metric is within its margin"
        if gated != 1:
            within = f"{gated} metrics are within their margins"
        reasons = [within if gated else "no metric is gated"]
    return Verdict(
        outcome=outcome,
        fails=outcome.value in {str(name) for name in fail_on},
        reasons=tuple(reasons),
    )


def with_lock(verdict: Verdict, locked: LockResult | None, *, fails: bool) -> Verdict:
    """The verdict with the lock taken into account.

    Drift that fails the gate is the outcome, unless the metrics say something worse; drift that
    only warns is one more reason. A missing lock is no drift.
    """
    if locked is None or locked.status is not LockStatus.DRIFT:
        return verdict
    because = drifted(locked)
    if not fails:
        return verdict.model_copy(update={"reasons": (*verdict.reasons, because)})
    if verdict.outcome in (Outcome.REGRESSED, Outcome.NOT_JUDGED):
        return Verdict(outcome=verdict.outcome, fails=True, reasons=(*verdict.reasons, because))
    return Verdict(outcome=Outcome.DRIFT, fails=True, reasons=(because, *verdict.reasons))
