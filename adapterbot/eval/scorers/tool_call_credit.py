"""How much of a tool call is right: half for the tool, half for its arguments."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import WRONG, Scorer
from adapterbot.eval.scorers.tool_calls import Shape, calls_of, shared
from adapterbot.records import ScoreKind


class ToolCallCredit(Scorer):
    """0.5 for the name, and 0.5 times the share of expected arguments with their values.

    Where no argument is expected, that half is for giving none. Judges one call.
    """

    name: ClassVar[str] = "tool_call_credit"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS

    extract: bool = True
    shape: Shape = "any"

    def check(self, sample: Sample) -> str | None:
        try:
            expected = calls_of(sample.expected, extract=False, shape=self.shape)
        except ValueError as error:
            return f"has an `expected` that is no tool call: {error}"
        return None if len(expected) == 1 else "expects several tool calls"

    def score(self, sample: Sample, answer: Answer) -> Scored:
        try:
            said = calls_of(answer.text, extract=self.extract, shape=self.shape)[0]
        except ValueError:
            return WRONG
        expected = calls_of(sample.expected, extract=False, shape=self.shape)[0]
        wanted = expected.arguments or {}
        named = 0.5 if said.name == expected.name else 0.0
        if said.arguments is None:
            return Scored(named)
        if not wanted:
            return Scored(named + (0.0 if said.arguments else 0.5))
        return Scored(named + 0.5 * shared(wanted, said.arguments) / len(wanted))
