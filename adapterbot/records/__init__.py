"""The values that flow through the gate: frozen, validated once, and the schema of report.json.

A report crosses from a job that ran a stranger's weights into the job that holds the token, so
every field is bounded here and nothing that parses can be inconsistent. No behaviour lives in
this module beyond validation and the few properties that are true by definition.
"""

from adapterbot.records.base import (
    CommitSha,
    Count,
    Digest,
    Finite,
    Line,
    Name,
    Probability,
    Record,
)
from adapterbot.records.bisect import (
    Between,
    BisectResult,
    BisectVerdict,
    BlamedRow,
    Drift,
    LayerChange,
    Probe,
    ProbeOutcome,
    Suspicion,
)
from adapterbot.records.deltas import (
    Comparison,
    Interval,
    MetricDelta,
    MetricVerdict,
    Outcome,
    Standing,
    Verdict,
)
from adapterbot.records.engine import EngineSettings
from adapterbot.records.lock import (
    DatasetDiff,
    FileDiff,
    LockPart,
    LockResult,
    LockStatus,
    RowExample,
)
from adapterbot.records.measuring import EarlyStop, NoiseFloor
from adapterbot.records.pulls import (
    AdapterPullRequest,
    AdapterWeights,
    EvalDelta,
    SampleChange,
    WeightsFile,
)
from adapterbot.records.report import (
    AdapterReport,
    EvalStats,
    Problem,
    Report,
    Source,
    Stage,
)
from adapterbot.records.saved import (
    Evaluated,
    EvaluatedAdapter,
    SavedResults,
    SavedSample,
    SavedTask,
    TaskMean,
)
from adapterbot.records.scores import (
    AdapterRef,
    Direction,
    SampleDiff,
    SampleScore,
    ScoreKind,
    TaskResult,
    Unit,
)
from adapterbot.records.shares import ExpertShare, TaskRouting

__all__ = [
    "AdapterPullRequest",
    "AdapterRef",
    "AdapterReport",
    "AdapterWeights",
    "Between",
    "BisectResult",
    "BisectVerdict",
    "BlamedRow",
    "CommitSha",
    "Comparison",
    "Count",
    "DatasetDiff",
    "Digest",
    "Direction",
    "Drift",
    "EarlyStop",
    "EngineSettings",
    "EvalDelta",
    "EvalStats",
    "Evaluated",
    "EvaluatedAdapter",
    "ExpertShare",
    "FileDiff",
    "Finite",
    "Interval",
    "LayerChange",
    "Line",
    "LockPart",
    "LockResult",
    "LockStatus",
    "MetricDelta",
    "MetricVerdict",
    "Name",
    "NoiseFloor",
    "Outcome",
    "Probability",
    "Probe",
    "ProbeOutcome",
    "Problem",
    "Record",
    "Report",
    "RowExample",
    "SampleChange",
    "SampleDiff",
    "SampleScore",
    "SavedResults",
    "SavedSample",
    "SavedTask",
    "ScoreKind",
    "Source",
    "Stage",
    "Standing",
    "Suspicion",
    "TaskMean",
    "TaskResult",
    "TaskRouting",
    "Unit",
    "Verdict",
    "WeightsFile",
]
