"""How held-out rows can be judged, told by what they expect as an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from adapterbot.eval.scorers.tool_calls import calls_of
from adapterbot.files.strict_json import parse_json

_SHORT = 200  # characters that a model can be asked to get right to the last one
_WORKED = ("####", "\\boxed")
_MOST_TOKENS = 1024
_STEP = 16


@dataclass(frozen=True)
class Scoring:
    """A scorer as a suite writes it, and how long an answer may become.

    `reason` says in a few words what in the answers decided it.
    """

    scorer: str | dict[str, object]
    reason: str
    max_new_tokens: int
    stop: tuple[str, ...]


def scoring_for(answers: Sequence[str]) -> Scoring:
    """The scorer that these expected answers allow, the strictest first."""
    scorer, reason = _scorer(answers)
    # No token is shorter than a byte, and the model needs one more to stop.
    longest = max(len(text.encode()) for text in answers) + 1
    tokens = min(_MOST_TOKENS, -(-longest // _STEP) * _STEP)
    one_line = not any("\n" in text.strip() for text in answers)
    return Scoring(scorer, reason, tokens, ("\n",) if one_line else ())


def _scorer(answers: Sequence[str]) -> tuple[str | dict[str, object], str]:
    if all(map(_is_tool_call, answers)):
        return "tool_call", "every answer is a tool call"
    if all(map(_is_number, answers)):
        return "numeric", "every answer is a number"
    if all(any(mark in text for mark in _WORKED) for text in answers):
        return "answer", "every answer is a worked solution that ends with its result"
    if all(map(_is_json, answers)):
        return {"name": "exact", "collapse_whitespace": True}, "every answer is JSON"
    if all(len(text) <= _SHORT and "\n" not in text.strip() for text in answers):
        kinds = len(set(answers))
        if kinds <= len(answers) // 5:
            return "exact", f"every answer is one of {kinds} labels"
        return "exact", "every answer is one short line"
    return "rouge_l", "the answers are free text"


def _is_tool_call(text: str) -> bool:
    try:
        calls = calls_of(text, extract=False)
    except ValueError:
        return False
    return bool(calls) and all(call.arguments is not None for call in calls)


def _is_number(text: str) -> bool:
    try:
        return Decimal(text.strip()).is_finite()
    except InvalidOperation:
        return False


def _is_json(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict | list)
    except ValueError:
        return False
