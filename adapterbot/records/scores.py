"""Adapters, the scores of their answers, and the samples on which two of them differ."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from adapterbot.records.base import Digest, Finite, Line, Name, Record, Text


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

    @property
    def worse(self) -> float:
        """The sign of a change for the worse: harm is this times the change."""
        return -1.0 if self is Direction.HIGHER else 1.0


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
