"""The values that flow through the gate: frozen, validated once, and the schema of report.json.

A report crosses from a job that ran a stranger's weights into the job that holds the token, so
every field is bounded here and nothing that parses can be inconsistent. No behaviour lives in
this module beyond validation and the few properties that are true by definition.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

REPORT_VERSION: Literal[1] = 1


Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=32 * 1024)]
Line = Annotated[str, Field(max_length=2000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CommitSha = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Count = Annotated[int, Field(ge=0, le=10**9)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, le=1e9)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """Frozen, and closed: an unknown field is an error, a NaN is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------- adapters and samples


class AdapterRef(Record):
    """Which weights: a PEFT directory and the digest of what was in it when we looked.

    `label` is what a reader sees ("adapters/dates @ 1a2b3c4", "base model", "checkpoint-0110").
    `path` is None for the bare base model.
    """

    label: Name
    path: str | None = None
    digest: Digest | None = None


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"


class ScoreKind(StrEnum):
    """What a score can be; decides the test that compares two of them."""

    BINARY = "binary"
    CONTINUOUS = "continuous"


class Unit(StrEnum):
    """How a reader wants the number written."""

    FRACTION = "fraction"  # 0…1, shown as percent
    NUMBER = "number"


class SampleScore(Record):
    """One answer to one sample. `score` is None exactly when `missing` says why.

    `stats` are additive statistics, for metrics of a whole corpus (BLEU, perplexity).
    """

    sample_id: Name
    score: Finite | None
    missing: Line | None = None
    prompt: Text = ""
    expected: Text = ""
    output: Text = ""
    slice: Name | None = None
    cluster: Name | None = None
    stats: Annotated[tuple[Finite, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _scored_or_missing(self) -> Self:
        if (self.score is None) == (self.missing is None):
            raise ValueError("exactly one of score and missing must be given")
        return self


class TaskResult(Record):
    """Every sample of one task under one adapter, in suite order."""

    task: Name
    scorer: Name
    direction: Direction
    kind: ScoreKind
    unit: Unit = Unit.FRACTION
    samples: tuple[SampleScore, ...]


# ---------------------------------------------------------------- deltas and verdict


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


class Comparison(StrEnum):
    """Named outcomes of comparing two score arrays; nothing becomes 0.0 silently."""

    COMPARED = "compared"
    IDENTICAL = "identical"  # every paired difference is exactly zero
    TOO_FEW = "too_few"  # fewer than 10 pairs: figures are shown, nothing is decided
    EMPTY = "empty"  # no pair at all
    INCOMPLETE = "incomplete"  # a sample is missing or not finite on one side


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
        if self.change is None:
            return None
        return -self.change if self.direction is Direction.HIGHER else self.change

    @property
    def metric(self) -> str:
        """The name a reader knows it by."""
        return f"{self.task} [{self.slice}]" if self.slice else self.task


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


# ---------------------------------------------------------------- lock


class LockStatus(StrEnum):
    """Whether the run can be reproduced from what was pushed."""

    OK = "ok"
    DRIFT = "drift"
    MISSING = "missing"


class LockPart(Record):
    """One pinned part: what the lock says, what the push holds, and what changed."""

    part: Name
    locked: Line
    now: Line
    ok: bool
    explanation: Line = ""
    file: Line | None = None
    line: Count | None = None


class LockResult(Record):
    """The lock check, shown as a small table."""

    status: LockStatus
    path: Line
    parts: tuple[LockPart, ...] = ()
    note: Line = ""


# ---------------------------------------------------------------- samples, bisect, stages


class SampleDiff(Record):
    """One sample on which baseline and candidate answered differently."""

    task: Name
    sample_id: Name
    slice: Name | None = None
    prompt: Text
    expected: Text
    baseline_output: Text
    candidate_output: Text
    baseline_score: Finite | None
    candidate_score: Finite | None
    harm: Finite | None

    @field_validator("prompt", "expected", "baseline_output", "candidate_output", mode="before")
    @classmethod
    def _clip(cls, value: object) -> object:
        if isinstance(value, str) and len(value) > 4096:
            return value[:4095] + "…"
        return value


class ProbeOutcome(StrEnum):
    """What one probe said of one checkpoint."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"


class Probe(Record):
    """One evaluation of one checkpoint, in the order in which it was made."""

    index: Count
    label: Name
    outcome: ProbeOutcome
    seconds: Seconds
    detail: Line = ""


class BisectVerdict(StrEnum):
    """Soup's words, and one more for a search that ended with a range."""

    ALL_OK = "ALL_OK"
    BROKEN_AT = "BROKEN_AT"
    BROKEN_WITHIN = "BROKEN_WITHIN"
    NOT_RUN = "NOT_RUN"


class BisectResult(Record):
    """Where it broke. `probability` is the posterior mass on `first_broken`, which is the most
    likely one of `candidates` when the verdict is BROKEN_WITHIN."""

    verdict: BisectVerdict
    metrics: tuple[Name, ...] = ()
    checkpoints: Count = 0
    first_broken: Name | None = None
    last_good: Name | None = None
    candidates: tuple[Name, ...] = ()
    probability: Probability | None = None
    probes: tuple[Probe, ...] = ()
    data_change: Text = ""
    note: Line = ""

    @model_validator(mode="after")
    def _names_what_it_found(self) -> Self:
        if self.verdict is BisectVerdict.BROKEN_AT and self.first_broken is None:
            raise ValueError("BROKEN_AT must name first_broken")
        return self


class Stage(Record):
    """How long one stage of the gate took."""

    name: Name
    seconds: Seconds


class EvalStats(Record):
    """What the evaluation cost, for the footer."""

    device: Line = ""
    dtype: Line = ""
    samples: Count = 0
    cached: Count = 0
    seconds: Seconds = 0.0


# ---------------------------------------------------------------- the report


class Problem(Record):
    """Why an adapter could not be judged, in the words of the error that said so."""

    kind: Literal["bad_input", "failure"]
    message: Line
    file: Line | None = None
    field: Line | None = None
    fix: Line | None = None


class AdapterReport(Record):
    """One adapter's section: one comment, one check."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
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
    stages: tuple[Stage, ...] = ()


class Source(Record):
    """Where the report comes from. Never believed by `publish`, only compared."""

    repository: Line | None = None
    pull_request: Count | None = None
    base_sha: CommitSha | None = None
    head_sha: CommitSha | None = None
    run_url: Line | None = None


class Report(Record):
    """report.json."""

    version: Literal[1] = REPORT_VERSION
    tool: Line
    source: Source
    partial: bool = False  # one adapter was named, so nothing is said of the others
    adapters: Annotated[tuple[AdapterReport, ...], Field(max_length=64)]

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
