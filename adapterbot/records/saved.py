"""Results of an evaluation as they are kept: a line that says what was asked, a line per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from adapterbot.records.base import Count, Digest, Finite, Line, Name, Record
from adapterbot.records.report import EvalStats
from adapterbot.records.scores import (
    AdapterRef,
    Direction,
    SampleScore,
    ScoreKind,
    TaskResult,
    Unit,
)

SAVED_VERSION: Literal[1] = 1


class SavedTask(Record):
    """A task without its samples: what its scores mean, and what they are held against.

    `margin` and `least_effect` are in the metric's unit. `threshold` is the least mean that a
    Soup gate demands of the candidate, None in suites of ours. `digest` covers what decides the
    scores (data, scorer, options, template, generation) and not what is made of them (margin,
    weight, gated, threshold), so that results stay cached when the policy changes.
    """

    name: Name
    scorer: Name
    scorer_options: Mapping[str, JsonValue] = {}
    direction: Direction
    kind: ScoreKind
    unit: Unit
    margin: Finite
    least_effect: Finite = 0.0
    threshold: Finite | None = None
    gated: bool
    weight: Finite = 1.0
    digest: Digest

    def result(self, samples: Iterable[SampleScore]) -> TaskResult:
        """These samples of one adapter, with what their scores mean."""
        return TaskResult(
            task=self.name,
            scorer=self.scorer,
            direction=self.direction,
            kind=self.kind,
            unit=self.unit,
            samples=tuple(samples),
        )


class SavedResults(Record):
    """The first line of a results file."""

    version: Literal[1] = SAVED_VERSION
    tool: Line
    adapter: AdapterRef
    base_model: Line
    suite: Line
    tasks: Annotated[tuple[SavedTask, ...], Field(max_length=1000)]


class SavedSample(Record):
    """Every other line."""

    task: Name
    sample: SampleScore


class TaskMean(Record):
    """One task under one adapter. `mean` is None where no sample could be scored; `missing` counts
    those that could not."""

    task: Name
    scorer: Name
    direction: Direction
    unit: Unit
    samples: Count
    missing: Count
    mean: Finite | None


class EvaluatedAdapter(Record):
    """One adapter under a suite. `weighted` is None unless the suite weighs its tasks."""

    adapter: AdapterRef
    results: Line
    tasks: tuple[TaskMean, ...]
    weighted: Finite | None = None
    eval: EvalStats


class Evaluated(Record):
    """What `adapterbot eval --json` prints."""

    version: Literal[1] = SAVED_VERSION
    tool: Line
    base_model: Line
    suite: Line
    adapters: tuple[EvaluatedAdapter, ...]
