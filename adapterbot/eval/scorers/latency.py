"""How long the answer took."""

from __future__ import annotations

from typing import ClassVar

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer
from adapterbot.records import Direction, ScoreKind, Unit


class Latency(Scorer):
    """Wall seconds for this answer. Shown; gated only when the suite says so, for a runner's
    neighbours move it more than an adapter does."""

    name: ClassVar[str] = "latency"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS
    unit: ClassVar[Unit] = Unit.NUMBER
    direction: ClassVar[Direction] = Direction.LOWER
    informative: ClassVar[bool] = True
    timed: ClassVar[bool] = True

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if answer.seconds is None:
            return Scored(None, "the engine measured no time")
        return Scored(answer.seconds)
