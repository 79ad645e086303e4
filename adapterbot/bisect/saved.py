"""bisect.json: what a search found, for scripts. Soup's keys, and what only a posterior knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from adapterbot import TOOL
from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.records import Between, BisectResult, BisectVerdict, ProbeOutcome
from adapterbot.records.base import Count, Line, Name, Probability, Record, Seconds


class Step(Record):
    """One probe. `ok` is None where it says neither by itself: a skip, a score, a chunk."""

    checkpoint: Line
    ok: bool | None
    outcome: ProbeOutcome
    seconds: Seconds
    samples: Count = 0
    detail: Line = ""


class Candidate(Record):
    """A checkpoint of the credible set, and the probability that it is the first bad one."""

    checkpoint: Line
    probability: Probability


class SavedDrift(Record):
    """It broke slowly: from one checkpoint, still as good as the oldest, to another, as bad as the
    newest."""

    since: Line
    until: Line
    probability: Probability


class SavedBisect(Record):
    """bisect.json, version 1. `interval` is the first and the last candidate of the credible set
    at `confidence`, or of a drift; `none_broken` is the probability that no checkpoint is."""

    version: Literal[1] = 1
    tool: Line
    verdict: BisectVerdict
    first_broken: Line | None
    last_good: Line | None
    probes: Count
    steps: tuple[Step, ...]
    checkpoints: Count
    metrics: tuple[Name, ...] = ()
    confidence: Probability
    probability: Probability | None
    none_broken: Probability | None
    interval: tuple[Line, Line] | None
    posterior: tuple[Candidate, ...] = Field(max_length=64)
    samples: Count
    seconds: Seconds
    drift: SavedDrift | None = None
    between: Between | None = None
    note: Line = ""


def saved(
    result: BisectResult, checkpoints: Sequence[Checkpoint], *, confidence: float
) -> SavedBisect:
    """A result as it is written; checkpoints by the paths that they were named by."""
    paths = [checkpoint.path for checkpoint in checkpoints]
    by_label = {c.label: c.path for c in reversed(checkpoints)}
    candidates = [by_label[label] for label in result.candidates]
    drift = result.drift
    said = {ProbeOutcome.GOOD: True, ProbeOutcome.BAD: False}
    return SavedBisect(
        tool=TOOL,
        verdict=result.verdict,
        first_broken=by_label.get(result.first_broken or ""),
        last_good=by_label.get(result.last_good or ""),
        probes=len(result.probes),
        steps=tuple(
            Step(
                checkpoint=paths[probe.index],
                ok=said.get(probe.outcome),
                outcome=probe.outcome,
                seconds=probe.seconds,
                samples=probe.samples,
                detail=probe.detail,
            )
            for probe in result.probes
        ),
        checkpoints=len(paths),
        metrics=result.metrics,
        confidence=confidence,
        probability=result.probability,
        none_broken=result.good_probability,
        interval=(candidates[0], candidates[-1]) if candidates else None,
        posterior=tuple(
            Candidate(checkpoint=paths[s.index], probability=s.probability)
            for s in result.suspicions
        ),
        samples=sum(probe.samples for probe in result.probes),
        seconds=round(sum(probe.seconds for probe in result.probes), 3),
        drift=SavedDrift(
            since=by_label[drift.since],
            until=by_label[drift.until],
            probability=drift.probability,
        )
        if drift
        else None,
        between=result.between,
        note=result.note,
    )
