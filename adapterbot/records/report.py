"""report.json: one section per adapter."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapterbot.records.base import CommitSha, Count, Key, Line, Name, Record, Seconds
from adapterbot.records.bisect import BisectResult
from adapterbot.records.deltas import MetricVerdict, Verdict
from adapterbot.records.history import Trend
from adapterbot.records.lock import LockResult
from adapterbot.records.measuring import EarlyStop, NoiseFloor
from adapterbot.records.scores import AdapterRef, SampleDiff
from adapterbot.records.shares import TaskRouting

MAX_ADAPTERS = 64


class Stage(Record):
    """How long one stage of the gate took, and how much processor time of our own process."""

    name: Name
    seconds: Seconds
    cpu_seconds: Seconds = 0.0


class EvalStats(Record):
    """What the evaluation cost, for the footer. `gpus` is how many of them it held."""

    device: Line = ""
    gpus: Count = 0
    dtype: Line = ""
    samples: Count = 0
    cached: Count = 0
    seconds: Seconds = 0.0


class Problem(Record):
    """Why an adapter could not be judged, in the words of the error that said so."""

    kind: Literal["bad_input", "failure", "ended"]
    message: Line
    file: Line | None = None
    field: Line | None = None
    fix: Line | None = None


class AdapterReport(Record):
    """One adapter's section: one comment, one check."""

    key: Key
    adapter: Line
    base_model: Line = ""
    baseline: AdapterRef | None = None
    candidate: AdapterRef | None = None
    lock: LockResult | None = None
    verdict: Verdict
    metrics: tuple[MetricVerdict, ...] = ()
    samples: tuple[SampleDiff, ...] = ()
    samples_changed: Count = 0
    bisect: BisectResult | None = None
    notes: tuple[Line, ...] = ()
    problem: Problem | None = None
    eval: EvalStats | None = None
    early: EarlyStop | None = None  # None where every sample was asked
    noise: NoiseFloor | None = None
    routing: tuple[TaskRouting, ...] = ()  # of a mixture
    stages: tuple[Stage, ...] = ()
    trends: tuple[Trend, ...] = ()  # empty where no history is kept


class Source(Record):
    """Where the report comes from. Never believed by `publish`, only compared."""

    repository: Line | None = None
    pull_request: Count | None = None
    base_sha: CommitSha | None = None
    head_sha: CommitSha | None = None
    run_url: Line | None = None


class Report(Record):
    """What a gate, a bisect or a delta found.

    partial: one adapter was named, so nothing is said of the others.
    """

    version: Literal[1] = 1
    tool: Line
    source: Source
    partial: bool = False
    adapters: Annotated[tuple[AdapterReport, ...], Field(max_length=MAX_ADAPTERS)]

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Self:
        keys = [adapter.key for adapter in self.adapters]
        if len(set(keys)) != len(keys):
            raise ValueError("adapter keys must be unique")
        return self

    @property
    def fails(self) -> bool:
        """Whether any adapter's finding fails the gate."""
        return any(adapter.verdict.fails for adapter in self.adapters)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every reason why something could not be judged."""
        return tuple(a.problem for a in self.adapters if a.problem is not None)
