"""How often answers match a list of patterns: the common part of `refusal` and `retry`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer
from adapterbot.eval.scorers.patterns import PatternTimeout, compiled, matches
from adapterbot.records import Direction, Finite

Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=200)
]
Within = Annotated[int, Field(ge=1)] | None


class PatternRate(Scorer):
    """1 when any of `patterns` (regular expressions, case apart) occurs in the first `within`
    characters of the answer. Lower is better unless the suite says otherwise."""

    direction: ClassVar[Direction] = Direction.LOWER

    patterns: Patterns
    within: Within = None
    timeout: Annotated[Finite, Field(gt=0, le=60)] = 1.0

    @field_validator("patterns")
    @classmethod
    def _can_be_compiled(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compiled(pattern, ignore_case=True)
        return patterns

    def score(self, sample: Sample, answer: Answer) -> Scored:
        # Typographic apostrophes would hide "I can’t" from "can't".
        text = answer.text[: self.within].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        try:
            found = any(
                matches(pattern, text, ignore_case=True, seconds=self.timeout)
                for pattern in self.patterns
            )
        except PatternTimeout as error:
            return Scored(None, str(error))
        return Scored(float(found))
