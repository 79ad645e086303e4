"""The model calls the right tool, with the right arguments."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer
from adapterbot.eval.scorers.tool_calls import Call, Shape, calls_of, shared


class ToolCall(Scorer):
    """1 when the calls in the answer are the expected ones, in order.

    `arguments`: `exact` compares them all, `subset` only those that are expected, `ignore` none.
    `extract`: a call inside `<tool_call>` or a Markdown fence counts too.
    `shape`: `function` takes only OpenAI's {"function": {…}}.
    """

    name: ClassVar[str] = "tool_call"

    arguments: Literal["exact", "subset", "ignore"] = "exact"
    extract: bool = True
    shape: Shape = "any"

    def check(self, sample: Sample) -> str | None:
        try:
            expected = calls_of(sample.expected, extract=False, shape=self.shape)
        except ValueError as error:
            return f"has an `expected` that is no tool call: {error}"
        if self.arguments != "ignore" and any(call.arguments is None for call in expected):
            return "has an expected tool call whose arguments are no JSON object"
        return None

    def score(self, sample: Sample, answer: Answer) -> Scored:
        try:
            said = calls_of(answer.text, extract=self.extract, shape=self.shape)
        except ValueError:
            return WRONG
        expected = calls_of(sample.expected, extract=False, shape=self.shape)
        right = len(said) == len(expected) and all(map(self._same, expected, said))
        return RIGHT if right else WRONG

    def _same(self, expected: Call, said: Call) -> bool:
        if expected.name != said.name:
            return False
        if self.arguments == "ignore":
            return True
        if expected.arguments is None or said.arguments is None:
            return False
        if self.arguments == "exact" and len(said.arguments) != len(expected.arguments):
            return False
        return shared(expected.arguments, said.arguments) == len(expected.arguments)
