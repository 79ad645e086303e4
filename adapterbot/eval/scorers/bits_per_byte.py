"""How many bits the model needs for each byte of the expected text: perplexity that does not
depend on the tokenizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from adapterbot.eval.answers import Answer, Request, Sample, Scored
from adapterbot.eval.scorers.base import CorpusScorer
from adapterbot.records import Direction, Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BitsPerByte(CorpusScorer):
    """−Σ log₂ p / Σ bytes (UTF-8). `stats` are −log₂ P and bytes."""

    name: ClassVar[str] = "bits_per_byte"
    unit: ClassVar[Unit] = Unit.NUMBER
    direction: ClassVar[Direction] = Direction.LOWER
    request: ClassVar[Request] = Request.LIKELIHOOD

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if len(answer.loglikelihoods) != 1 or not sum(answer.byte_counts):
            return Scored(None, "no log-likelihood")
        bits, size = -answer.loglikelihoods[0] / math.log(2), answer.byte_counts[0]
        if not math.isfinite(bits):
            return Scored(None, "the log-likelihood is not finite")
        return Scored(bits / size, stats=(bits, float(size)))

    def aggregate(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(totals[..., 0], totals[..., 1])
