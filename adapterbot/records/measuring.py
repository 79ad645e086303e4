"""How much was asked, and how much of what was measured is the engine's own noise."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from adapterbot.records.base import Count, Finite, Name, Record
from adapterbot.records.scores import Unit


class EarlyStop(Record):
    """How many samples of each side sufficed, of how many there are, where we stop early."""

    used: Count
    planned: Count


class NoiseFloor(Record):
    """The baseline against itself, asked again in batches of another composition (A/A).

    `answers` and `scores` of `samples` differ. `task` is the one whose mean moved most, by `shift`
    in its own unit over the `asked` of its samples; None where none moved.
    """

    samples: Count
    answers: Count
    scores: Count
    task: Name | None = None
    unit: Unit = Unit.FRACTION
    shift: Annotated[Finite, Field(ge=0)] = 0.0
    asked: Count = 0

    @model_validator(mode="after")
    def _no_more_than_asked(self) -> Self:
        if max(self.answers, self.scores) > self.samples:
            raise ValueError("more samples differ than were asked")
        return self
