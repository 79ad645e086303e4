"""ROUGE-L: the longest common subsequence of words (Lin 2004, "ROUGE: A Package for Automatic
Evaluation of Summaries", section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer, accepted, needs_expected
from adapterbot.records import Finite, ScoreKind

_WORD = re.compile(r"\w+")


class RougeL(Scorer):
    """F_β of P = lcs / |answer| and R = lcs / |expected|, over case-folded words.

    Words are runs of Unicode letters and digits, so that languages other than English count.
    With several accepted answers the best one counts.
    """

    name: ClassVar[str] = "rouge_l"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS

    beta: Annotated[Finite, Field(gt=0)] = 1.0

    def check(self, sample: Sample) -> str | None:
        if not all(_words(text) for text in accepted(sample)):
            return needs_expected(sample) or "has an `expected` without words"
        return None

    def score(self, sample: Sample, answer: Answer) -> Scored:
        said = _words(answer.text)
        return Scored(max(self._f(said, _words(text)) for text in accepted(sample)))

    def _f(self, said: Sequence[str], expected: Sequence[str]) -> float:
        common = lcs_length(said, expected)
        if common == 0:
            return 0.0
        precision, recall = common / len(said), common / len(expected)
        weight = self.beta**2
        return (1 + weight) * precision * recall / (recall + weight * precision)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, in O(|b| · |a| / 64) word operations.

    Bit-parallel (Hyyrö 2004, "Bit-Parallel LCS-length Computation Revisited"): row v of the
    dynamic programme is one integer whose zero bits mark where its value steps up.
    """
    positions: dict[str, int] = {}
    for index, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << index
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matched = row & positions.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(a) - row.bit_count()
