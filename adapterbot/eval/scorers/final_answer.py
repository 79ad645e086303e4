r"""The final answer that a worked solution states is the expected one.

A text states its answer after `####` (GSM8K), in `\boxed{…}`, or in a phrase ("the answer is …",
"Answer: …"). A box outranks a phrase; of a `####` line and either of those the later one counts.
A text without any of them answers with its last number, or its last line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer

_MARKER = "####"
_BOX = re.compile(r"\\boxed\s*\{")
_PHRASE = re.compile(
    r"(?<![^\W_])answer[*_]{0,3}[ \t]*(?::|is(?![^\W_])[ \t]*:?)[*_]{0,3}\s{0,20}([^\n]*)",
    re.IGNORECASE,
)
# A comma ends the clause unless a number follows it: "41, 42 or 43" is a list.
_CLAUSE_END = re.compile(
    r"[.;](?=\s|$)|,\s(?!\s{0,20}\$?[-+]?\.?\d)|\s(?:because|since)\s", re.IGNORECASE
)
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|[-+]?\.\d+"
_ANY_NUMBER = re.compile(_NUMBER, re.ASCII)
# One that is no part of a word, a fraction, a power or a time.
_LONE_NUMBER = re.compile(rf"(?<![\w.^{{}}/:\\])(?:{_NUMBER})(?![\w^{{}}/]|:\d)", re.ASCII)
_VARIABLE = re.compile(r"([A-Za-z])\s*=\s*")
_DROPPED = re.compile(r"\\[()\[\],!;: ]|\\?\$|\\left(?![a-zA-Z])|\\right(?![a-zA-Z])")
_LONGEST = 400


@dataclass(frozen=True)
class Stated:
    """An answer: its text, its value if it is a number, and x where it is written "x = …"."""

    text: str
    number: Decimal | None
    variable: str | None = None


class FinalAnswer(Scorer):
    """1 when both sides state the same final answer, as a number or, case apart, as text.

    A phrase that names several different numbers hedges, and states none.
    """

    name: ClassVar[str] = "answer"

    def check(self, sample: Sample) -> str | None:
        """What is expected must itself state one answer."""
        if stated(sample.expected, reference=True) is None:
            return "has an `expected` that states no single answer"
        return None

    def score(self, sample: Sample, answer: Answer) -> Scored:
        wanted = stated(sample.expected, reference=True)
        said = stated(answer.text, reference=False)
        if wanted is None or said is None:
            return WRONG
        if wanted.variable and said.variable and wanted.variable != said.variable:
            return WRONG
        if wanted.number is not None:
            return RIGHT if said.number == wanted.number else WRONG
        return RIGHT if _key(said.text) == _key(wanted.text) else WRONG


def stated(text: str, *, reference: bool) -> Stated | None:
    """The final answer of a text, None when it states none or several.

    A `reference` without a marker is an answer as a whole, if it is one line.
    """
    text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    marked = _last_marked(text)
    box = _last_box(text)
    phrase = None if box else _last_phrase(text)
    other = box or phrase
    if marked and (other is None or marked[0] > other[0]):
        return _answer(marked[1])
    if box:
        return _answer(box[1])
    if phrase:
        return _of_clause(phrase[1], text)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or (reference and len(lines) > 1):
        return None
    whole = _answer(lines[-1])
    if reference or whole is None:
        return whole
    return Stated(whole.text, _last_number(text), whole.variable)


def _last_marked(text: str) -> tuple[int, str] | None:
    start = text.rfind(_MARKER)
    if start < 0:
        return None
    line = text[start + len(_MARKER) :].partition("\n")[0]
    return (start, line) if _tidy(line) else None


def _last_box(text: str) -> tuple[int, str] | None:
    r"""The last `\boxed{…}` that closes: one pass over the braces, however many never do."""
    starts = {match.end() - 1: match.start() for match in _BOX.finditer(text)}
    if not starts:
        return None
    opened: list[int] = []
    found = None
    for match in re.finditer(r"[{}]", text):
        if match.group() == "{":
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            if start in starts:
                found = (starts[start], text[start + 1 : match.start()])
    return found if found and _tidy(found[1]) else None


def _last_phrase(text: str) -> tuple[int, str] | None:
    phrases = list(_PHRASE.finditer(text))
    if not phrases:
        return None
    rest = phrases[-1].group(1)
    end = _CLAUSE_END.search(rest)
    clause = _tidy(rest[: end.start()] if end else rest)
    return (phrases[-1].start(), clause) if clause else None


def _of_clause(clause: str, text: str) -> Stated | None:
    """The one number of a clause; without any, its words, and the last number said elsewhere."""
    numbers = {_value(literal) for literal in _LONE_NUMBER.findall(clause)}
    if len(numbers) > 1:
        return None
    answer = _answer(clause)
    if answer is None:
        return None
    number = numbers.pop() if numbers else None
    if number is None and not any(character.isdigit() for character in clause):
        number = _last_number(text)
    return Stated(answer.text, number, answer.variable)


def _answer(text: str) -> Stated | None:
    text = _tidy(text)
    variable = _VARIABLE.match(text)
    rest = text[variable.end() :] if variable else text
    if not rest:
        return None
    return Stated(rest, _value(rest), variable.group(1) if variable else None)


def _last_number(text: str) -> Decimal | None:
    numbers = _ANY_NUMBER.findall(text)
    return _value(numbers[-1]) if numbers else None


def _tidy(text: str) -> str:
    return _DROPPED.sub("", text).strip(" \t\r\n*").rstrip(".,:;! \t\r\n*")


def _value(text: str) -> Decimal | None:
    if len(text) > _LONGEST or not _ANY_NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", ""))


def _key(text: str) -> str:
    return "".join(text.split()).casefold()
