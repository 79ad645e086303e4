"""What became of each metric, commit by commit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapterbot.records.base import CommitSha, Count, Finite, Key, Record
from adapterbot.records.deltas import Outcome
from adapterbot.records.scores import Direction, Unit

HISTORY_VERSION: Literal[1] = 1
MAX_POINTS = 100


class PastMetric(Record):
    """One metric of one commit: the level that its adapter reached, over `n` samples."""

    metric: Annotated[str, Field(min_length=1, max_length=500)]
    unit: Unit
    direction: Direction
    value: Finite | None
    n: Count


class PastResult(Record):
    """One adapter at one commit of the base branch. `time` is the commit's, in Unix seconds, or
    when it was judged, if that was earlier: a clock that is ahead must not keep it the newest."""

    version: Literal[1] = HISTORY_VERSION
    commit: CommitSha
    time: Annotated[int, Field(ge=0, le=2**40)]
    adapter: Key
    outcome: Outcome
    metrics: Annotated[tuple[PastMetric, ...], Field(max_length=1000)]


class Point(Record):
    """A metric's level at one commit."""

    commit: CommitSha
    time: Annotated[int, Field(ge=0, le=2**40)]
    value: Finite | None


class Trend(Record):
    """A metric's levels, oldest first."""

    metric: Annotated[str, Field(min_length=1, max_length=500)]
    unit: Unit
    direction: Direction
    points: Annotated[tuple[Point, ...], Field(max_length=MAX_POINTS)]


class History(Record):
    """What `adapterbot history --json` prints: every kept result, oldest first."""

    version: Literal[1] = HISTORY_VERSION
    adapters: dict[Key, tuple[Trend, ...]]
    results: tuple[PastResult, ...]
