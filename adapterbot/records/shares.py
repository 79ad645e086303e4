"""How a mixture shares a task's answers out among its experts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from adapterbot.records.base import Count, Name, Probability, Record

# Both sides may have 64 experts, and none in common.
MAX_SHARES = 128


class ExpertShare(Record):
    """One expert's share of a task's answers; None on a side that has no such expert."""

    expert: Name
    baseline: Probability | None
    candidate: Probability | None

    @model_validator(mode="after")
    def _of_one_side_at_least(self) -> Self:
        if self.baseline is None and self.candidate is None:
            raise ValueError("an expert is neither side's")
        return self


class TaskRouting(Record):
    """The shares of one task's answers, over the tokens of `samples` of them."""

    task: Name
    samples: Count
    experts: Annotated[tuple[ExpertShare, ...], Field(min_length=1, max_length=MAX_SHARES)]
