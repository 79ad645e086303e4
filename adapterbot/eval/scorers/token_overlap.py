"""How many words two texts share."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer, needs_expected
from adapterbot.records import ScoreKind


class TokenOverlap(Scorer):
    """|A ∩ B| / |A ∪ B| over the sets of lower-cased words (Jaccard)."""

    name: ClassVar[str] = "token_overlap"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS

    def check(self, sample: Sample) -> str | None:
        return needs_expected(sample)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        said = set(answer.text.lower().split())
        expected = set(sample.expected.lower().split())
        union = said | expected
        return Scored(len(said & expected) / len(union) if union else 0.0)
