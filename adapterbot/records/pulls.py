"""An adapter pull request as a document: what it starts from, what it brings, what that does.

`soup adapters pr` has the same fields; ours says which unit and direction a figure has, and None
where something was not measured.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, computed_field

from adapterbot.records.base import CommitSha, Count, Digest, Finite, Line, Record
from adapterbot.records.deltas import Interval, Standing
from adapterbot.records.lock import DatasetDiff
from adapterbot.records.scores import Direction, Unit

MAX_DELTAS = 64
MAX_SAMPLES = 256
MAX_SAMPLE_TEXT = 32 * 1024
MAX_DATASET_DIFF = 1024 * 1024

SampleText = Annotated[str, Field(max_length=MAX_SAMPLE_TEXT)]


class EvalDelta(Record):
    """One metric on both sides, in its own units; a fraction is shown as percent.

    `direction` is None where nobody said which way is better. `interval` is for the difference.
    """

    metric: Annotated[str, Field(min_length=1, max_length=256)]
    baseline: Finite | None = None
    candidate: Finite | None = None
    unit: Unit = Unit.NUMBER
    direction: Direction | None = None
    interval: Interval | None = None
    standing: Standing | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no property below a decorator
    @property
    def delta(self) -> float | None:
        """Candidate − baseline; None where one of them was not measured, or beyond a float."""
        if self.baseline is None or self.candidate is None:
            return None
        change = self.candidate - self.baseline
        return change if math.isfinite(change) else None


class SampleChange(Record):
    """One prompt and what both sides answered."""

    prompt: SampleText
    baseline_output: SampleText = ""
    candidate_output: SampleText = ""


class WeightsFile(Record):
    """One file of the adapter; for a Git LFS pointer, the file that it stands for."""

    name: Line
    size: Count
    sha256: Digest


class AdapterWeights(Record):
    """The adapter itself. `digest` covers its options and weights, and nothing else."""

    path: Line
    digest: Digest
    kind: Line
    base_model: Line | None = None
    parameters: Annotated[int, Field(ge=0)] = 0
    files: Annotated[tuple[WeightsFile, ...], Field(max_length=1000)] = ()


class AdapterPullRequest(Record):
    """The document: {base SHA, dataset diff, adapter weights, eval-delta, sample diffs}."""

    version: Literal[1] = 1
    tool: Line
    title: Annotated[str, Field(min_length=1, max_length=256)]
    base_sha: CommitSha
    adapter: AdapterWeights
    dataset_diff: DatasetDiff | Annotated[str, Field(max_length=MAX_DATASET_DIFF)] | None = None
    deltas: Annotated[tuple[EvalDelta, ...], Field(max_length=MAX_DELTAS)] = ()
    samples: Annotated[tuple[SampleChange, ...], Field(max_length=MAX_SAMPLES)] = ()
    notes: Annotated[tuple[Line, ...], Field(max_length=64)] = ()
