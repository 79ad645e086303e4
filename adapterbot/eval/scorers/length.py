"""How long the answer is."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Scorer
from adapterbot.records import Direction, ScoreKind, Unit


class Length(Scorer):
    """The answer's tokens, characters, words or lines. Shown; gated only when the suite says so."""

    name: ClassVar[str] = "length"
    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS
    unit: ClassVar[Unit] = Unit.NUMBER
    direction: ClassVar[Direction] = Direction.LOWER
    informative: ClassVar[bool] = True

    count: Literal["tokens", "characters", "words", "lines"] = "tokens"

    def score(self, sample: Sample, answer: Answer) -> Scored:
        match self.count:
            case "tokens":
                if answer.text and not answer.token_ids:
                    return Scored(None, "the engine reported no tokens")
                return Scored(float(len(answer.token_ids)))
            case "characters":
                return Scored(float(len(answer.text)))
            case "words":
                return Scored(float(len(answer.text.split())))
            case "lines":
                return Scored(float(len(answer.text.splitlines())))
