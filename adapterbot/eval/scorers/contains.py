"""The expected text occurs in the answer."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer, accepted, needs_expected


class Contains(Scorer):
    """1 when `expected` (or one of them) occurs in the answer.

    `whole_word`: the characters beside it are neither letters nor digits, so that "14" does not
    contain "4".
    """

    name: ClassVar[str] = "contains"

    ignore_case: bool = False
    whole_word: bool = False

    def check(self, sample: Sample) -> str | None:
        """Every text contains the empty one, so that would measure nothing."""
        return needs_expected(sample)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        said = self._normal(answer.text)
        found = any(self._occurs(self._normal(text).strip(), said) for text in accepted(sample))
        return RIGHT if found else WRONG

    def _normal(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text

    def _occurs(self, needle: str, said: str) -> bool:
        if not self.whole_word:
            return needle in said
        start = said.find(needle)
        while start >= 0:
            end = start + len(needle)
            before, after = said[max(start - 1, 0) : start], said[end : end + 1]
            if not before.isalnum() and not after.isalnum():
                return True
            start = said.find(needle, start + 1)
        return False
