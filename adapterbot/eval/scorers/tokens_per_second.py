"""How fast the answer was written."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer
from adapterbot.records import ScoreKind, Unit


class TokensPerSecond(Scorer):
    """Tokens of the answer per wall second. Shown; gated only when the suite says so."""

    name: ClassVar[str] = "tokens_per_second"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS
    unit: ClassVar[Unit] = Unit.NUMBER
    informative: ClassVar[bool] = True
    timed: ClassVar[bool] = True

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if not answer.seconds:
            return Scored(None, "the engine measured no time")
        if answer.text and not answer.token_ids:
            return Scored(None, "the engine reported no tokens")
        return Scored(len(answer.token_ids) / answer.seconds)
