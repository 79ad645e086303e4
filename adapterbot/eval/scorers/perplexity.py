"""How surprised the model is by the expected text, per token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from adapterbot.eval.answers import Answer, Request, Sample, Scored
from adapterbot.eval.scorers.base import CorpusScorer
from adapterbot.records import Direction, Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST = 700.0  # exp() of more is no float


class Perplexity(CorpusScorer):
    """exp(−Σ log p / Σ tokens). Comparable only between adapters of one tokenizer.

    `stats` are −log P (nats) and tokens.
    """

    name: ClassVar[str] = "perplexity"
    unit: ClassVar[Unit] = Unit.NUMBER
    direction: ClassVar[Direction] = Direction.LOWER
    request: ClassVar[Request] = Request.LIKELIHOOD

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if len(answer.loglikelihoods) != 1 or not sum(answer.token_counts):
            return Scored(None, "no log-likelihood")
        nats, tokens = -answer.loglikelihoods[0], answer.token_counts[0]
        if not math.isfinite(nats) or nats / tokens > _LARGEST:
            return Scored(None, "the log-likelihood is not finite")
        return Scored(math.exp(nats / tokens), stats=(nats, float(tokens)))

    def aggregate(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(np.divide(totals[..., 0], totals[..., 1]))
