"""A regular expression matches the answer."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer
from adapterbot.eval.scorers.patterns import PatternError, PatternTimeout, compiled, matches
from adapterbot.records import Finite


class Regex(Scorer):
    """1 when the pattern occurs in the answer (`whole`: is all of it, spaces around it apart).

    The pattern is `pattern`, or the row's `expected` where that is not given. A search that
    takes longer than `timeout` seconds of processor time leaves the sample unscored.
    """

    name: ClassVar[str] = "regex"

    pattern: Annotated[str, Field(min_length=1)] | None = None
    ignore_case: bool = False
    whole: bool = False
    timeout: Annotated[Finite, Field(gt=0, le=60)] = 1.0

    def check(self, sample: Sample) -> str | None:
        """A pattern that cannot be compiled would score every answer as wrong."""
        pattern = self.pattern or sample.expected
        if not pattern:
            return "has no pattern in `expected`"
        try:
            compiled(pattern, self.ignore_case)
        except PatternError as error:
            return str(error)
        return None

    def score(self, sample: Sample, answer: Answer) -> Scored:
        try:
            found = matches(
                self.pattern or sample.expected,
                answer.text.strip() if self.whole else answer.text,
                ignore_case=self.ignore_case,
                whole=self.whole,
                seconds=self.timeout,
            )
        except PatternTimeout as error:
            return Scored(None, str(error))
        return RIGHT if found else WRONG
