"""chrF (Popović 2015): an F-score over character n-grams, with sacrebleu's conventions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import CorpusScorer, needs_expected
from adapterbot.records import Finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ORDER = 6


class Chrf(CorpusScorer):
    """Corpus chrF in 0…1 over 1- to 6-grams of characters, spaces left out.

    `stats` are, for each order, n-grams of the answer, of the reference, and in both. Orders that
    one side is too short for are left out of the averages (sacrebleu's effective order).
    """

    name: ClassVar[str] = "chrf"

    beta: Annotated[Finite, Field(gt=0)] = 2.0
    lowercase: bool = False

    def check(self, sample: Sample) -> str | None:
        return needs_expected(sample)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        import numpy as np

        said, expected = self._characters(answer.text), self._characters(sample.expected)
        stats: list[float] = []
        for order in range(1, _ORDER + 1):
            mine, theirs = _ngrams(said, order), _ngrams(expected, order)
            # An order that the reference is too short for counts no n-grams of the answer.
            stats += [
                mine.total() if theirs else 0,
                theirs.total(),
                (mine & theirs).total(),
            ]
        return Scored(float(self.aggregate(np.array(stats, dtype=float))), stats=tuple(stats))

    def aggregate(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """(1+β²) P R / (β² P + R), with P and R averaged over the orders."""
        import numpy as np

        said, expected, both = totals[..., 0::3], totals[..., 1::3], totals[..., 2::3]
        effective = (said > 0) & (expected > 0)
        orders = np.maximum(effective.sum(axis=-1), 1)
        precision = _ratio(both, said, effective).sum(axis=-1) / orders
        recall = _ratio(both, expected, effective).sum(axis=-1) / orders
        weight = self.beta**2
        denominator = weight * precision + recall
        score = _ratio((1 + weight) * precision * recall, denominator, denominator > 0)
        return np.where(expected[..., 0] > 0, score, np.nan)

    def _characters(self, text: str) -> str:
        text = "".join(text.split())
        return text.lower() if self.lowercase else text


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    import numpy as np

    return np.divide(above, below, out=np.zeros(np.shape(above)), where=where)
