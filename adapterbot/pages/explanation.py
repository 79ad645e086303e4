"""Why a verdict is what it is, in words and numbers: the rule of each decision, filled in.

Plain text for a terminal. Names in a report are untrusted, so everything that would be invisible is
spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterbot.pages.figures import Scale
from adapterbot.pages.inert import visible
from adapterbot.records import (
    AdapterReport,
    BisectVerdict,
    Comparison,
    LockStatus,
    MetricVerdict,
    Outcome,
    Record,
    Report,
    Standing,
)
from adapterbot.records.deltas import FEWEST
from adapterbot.wording import drifted

_OUTCOMES = {
    Outcome.PASSED: "passed: every gated metric is within its margin",
    Outcome.REGRESSED: "regressed: at least one gated metric surely got worse",
    Outcome.INCONCLUSIVE: "inconclusive: nothing surely got worse, but not every metric is "
    "surely within its margin",
    Outcome.DRIFT: "lock drift: what was pushed is not what soup.lock pins",
    Outcome.NOT_JUDGED: "could not be judged, so the gate ends with an error",
}
_NOT_COMPARED = {
    Comparison.TOO_FEW: f"fewer than {FEWEST} samples, or clusters of them, are too few to decide "
    "anything",
    Comparison.EMPTY: "there is no sample that both sides answered",
    Comparison.INCOMPLETE: "a sample is missing on one side, and a gap is not a score",
}


class MetricExplanation(Record):
    """One metric: its standing, and what led there, in order."""

    metric: str
    standing: Standing
    because: tuple[str, ...]


class Explanation(Record):
    """One adapter: its outcome, what led there besides metrics, and every metric."""

    adapter: str
    outcome: Outcome
    fails: bool
    because: tuple[str, ...]
    metrics: tuple[MetricExplanation, ...]


def explain(report: Report) -> tuple[Explanation, ...]:
    """Every adapter of a report, explained."""
    return tuple(
        Explanation(
            adapter=visible(adapter.adapter),
            outcome=Outcome.NOT_JUDGED if adapter.problem else adapter.verdict.outcome,
            fails=adapter.verdict.fails,
            because=tuple(map(visible, _adapter(adapter))),
            metrics=tuple(
                MetricExplanation(
                    metric=visible(metric.delta.metric),
                    standing=metric.standing,
                    because=tuple(map(visible, _metric(metric))),
                )
                for metric in adapter.metrics
            ),
        )
        for adapter in report.adapters
    )


def text(found: Explanation) -> str:
    """An explanation as a person reads it."""
    word = "fails" if found.fails else "does not fail"
    judged = "" if found.outcome is Outcome.NOT_JUDGED else f"; the gate {word}"
    lines = [f"{found.adapter}: {_OUTCOMES[found.outcome]}{judged}"]
    lines += [f"  {line}" for line in found.because]
    for metric in found.metrics:
        lines += ["", f"{metric.metric}: {metric.standing.value.replace('_', ' ')}"]
        lines += [f"  {line}" for line in metric.because]
    return "\n".join(lines)


def _adapter(adapter: AdapterReport) -> Iterator[str]:
    if adapter.problem:
        problem = adapter.problem
        yield ": ".join(filter(None, (problem.file, problem.field, problem.message)))
        if problem.fix:
            yield f"to do: {problem.fix}"
        return
    if adapter.baseline and adapter.candidate:
        yield f"baseline {adapter.baseline.label}, candidate {adapter.candidate.label}"
    gated = sum(metric.gated for metric in adapter.metrics)
    if gated > 1:
        yield (
            f"{gated} metrics are gated, so each needs stronger evidence before it counts as "
            "worse (Holm): one false alarm among them is one too many"
        )
    lock = adapter.lock
    if lock and lock.status is LockStatus.DRIFT:
        yield drifted(lock)
    elif lock and lock.status is LockStatus.MISSING:
        yield f"{lock.path} is missing, so the run cannot be reproduced"
    found = adapter.bisect
    if found and found.verdict is BisectVerdict.BROKEN_AT:
        sure = f" (probability {found.probability:.1%})" if found.probability else ""
        yield f"it broke at {found.first_broken}{sure}, of {found.checkpoints} checkpoints"
    elif found and found.drift:
        yield f"it got worse slowly, from {found.drift.since} to {found.drift.until}"
    elif found and found.verdict is BisectVerdict.BROKEN_WITHIN:
        yield f"it broke at one of {', '.join(found.candidates)}"


def _metric(metric: MetricVerdict) -> Iterator[str]:
    delta, scale = metric.delta, Scale.of(metric.delta)
    if delta.outcome in _NOT_COMPARED:
        yield _NOT_COMPARED[delta.outcome]
        if delta.note:
            yield delta.note
        return
    yield (
        f"baseline {scale.level(delta.baseline)}, candidate {scale.level(delta.candidate)} on "
        f"{delta.n:,} paired samples: {scale.change(delta.change)}"
    )
    if delta.outcome is Comparison.IDENTICAL:
        yield "every paired difference is exactly zero"
    if delta.interval:
        yield (
            f"with {delta.interval.level:.0%} confidence the change lies in "
            f"{scale.interval(delta.interval)}"
        )
    yield from _decision(metric, scale)
    if delta.min_detectable is not None:
        seen = scale.detectable(delta.min_detectable, delta.direction)
        yield f"the smallest drop that this suite would detect 4 times out of 5: {seen}"


def _decision(metric: MetricVerdict, scale: Scale) -> Iterator[str]:
    """The rule that decided, with its figures in place."""
    delta, standing = metric.delta, metric.standing
    if standing is Standing.INFORMATIVE:
        yield "it is not gated, so it informs and decides nothing"
        return
    low, high = delta.harm_low, delta.harm_high
    if delta.p_holm is not None:
        yield f"p (worse) after Holm: {delta.p_holm:.3g}"
    if low is not None and high is not None:
        fine = scale.apart(high, metric.margin)
        ends = f"at least {fine.change(low)}, at most {fine.change(high)}"
        yield f"harm {fine.change(delta.harm)}: {ends}"
    margin = scale.showing(metric.margin).change(metric.margin)
    least = scale.showing(metric.least_effect).change(metric.least_effect)
    enough = f", and the {{}} is at least {least}, the least that counts"
    if not metric.least_effect:
        enough = ""
    sure = (low is None or low > 0) and (delta.harm or 0.0) >= metric.least_effect
    if standing is Standing.REGRESSED and sure:
        yield f"regressed: the lower bound of the harm is above 0{enough.format('harm')}"
        if (delta.harm or 0.0) < metric.margin:
            yield (
                f"the margin {margin} decides what is ok, not what fails; to tolerate a small "
                "drop, set `least_effect`"
            )
    elif standing is Standing.REGRESSED:
        yield "regressed: the candidate misses the threshold that the suite demands"
    elif standing is Standing.INCONCLUSIVE:
        yield f"inconclusive: it is neither surely above 0 nor surely below the margin {margin}"
        if delta.samples_needed:
            yield f"about {delta.samples_needed:,} samples would settle it"
    elif standing is Standing.IMPROVED:
        yield f"improved: it is surely below 0, after Holm's correction too{enough.format('gain')}"
    elif standing is Standing.OK:
        yield f"ok: the upper bound of the harm is below the margin {margin}"
