"""The whole answer is the expected one."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import RIGHT, WRONG, Scorer, accepted


class Exact(Scorer):
    """1 when the answer equals `expected` (or one of them, when it is a list)."""

    name: ClassVar[str] = "exact"

    strip: bool = True
    ignore_case: bool = False
    collapse_whitespace: bool = False

    def check(self, sample: Sample) -> str | None:
        """An empty `expected` is a fair question; a row without one is an oversight."""
        given = sample.fields.get("expected") is not None
        return None if given else "has no `expected` to compare with"

    def score(self, sample: Sample, answer: Answer) -> Scored:
        said = self._normal(answer.text)
        return RIGHT if any(self._normal(text) == said for text in accepted(sample)) else WRONG

    def _normal(self, text: str) -> str:
        if self.collapse_whitespace:
            text = " ".join(text.split())
        elif self.strip:
            text = text.strip()
        return text.casefold() if self.ignore_case else text
