"""What a merge did: merge.json."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from adapterbot.records.base import Count, Digest, Finite, Line, Name, Record, Seconds

Seed = Annotated[int, Field(ge=0, lt=2**32)]
GroupWeights = tuple[tuple[Finite, ...], ...]


class MergeInput(Record):
    """One adapter that went in."""

    path: Line
    digest: Digest


class Generation(Record):
    """One generation of the search, or the starting points (generation 0).

    `best` and `mean` are scores on the selection split; None when every candidate failed.
    `sigma` is the standard deviation of what is drawn, over all directions.
    """

    generation: Count
    population: Count
    evaluated: Count  # candidate × item
    best: Finite | None
    mean: Finite | None
    best_so_far: Finite | None
    sigma: Annotated[Finite, Field(ge=0.0)]
    failed: Count = 0
    dropped: Count = 0  # left early, once they were hopeless


class Failure(Record):
    """A candidate that could not be scored. It ranks last, with −1e9 for a score."""

    generation: Count
    weights: GroupWeights
    score: Literal[-1_000_000_000] = -1_000_000_000
    reason: Line


class Finalist(Record):
    """One row of the final table.

    `difference`, `low` and `high` compare it with the best single adapter on the report split,
    paired by item, 95 %; None where it was not measured.
    """

    name: Name
    weights: GroupWeights
    selection: Finite | None
    report: Finite | None = None
    difference: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    failed: Line | None = None


class StopReason(StrEnum):
    """Why a search ended."""

    CONVERGED = "converged"
    GENERATIONS = "generations"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"


class SearchRecord(Record):
    """How the weights were found."""

    search: Line
    groups: tuple[Line, ...]
    population: Count
    seed: Seed
    budget_seconds: Count
    seconds: Seconds
    stop: StopReason
    converged: bool
    gain: Finite | None  # of the best over the best starting point, on the selection split
    gain_low: Finite | None
    gain_high: Finite | None
    restarts: Count
    candidates: Count
    evaluated: Count
    failures: Annotated[tuple[Failure, ...], Field(max_length=100)] = ()
    failed: Count = 0
    selection_items: Count
    report_items: Count
    suite: Line
    suite_digest: Digest
    winner: Name
    best_parent: Line  # path of the input that scored best alone on the selection split
    history: tuple[Generation, ...]
    finalists: tuple[Finalist, ...]


class MergeRecord(Record):
    """merge.json: inputs, what was done with them, and what came of it."""

    version: Literal[1] = 1
    tool: Line
    strategy: Line
    inputs: tuple[MergeInput, ...]
    base_model: Line = ""
    weights: GroupWeights = ()
    rank: Count | None = None
    density: Finite | None = None
    seed: Seed | None = None
    expression: Line | None = None
    truncation: Annotated[Finite, Field(ge=0.0)] | None = None  # ‖lost‖ / ‖ΔW‖ over all modules
    output: Line
    output_digest: Digest | None = None
    search: SearchRecord | None = None
