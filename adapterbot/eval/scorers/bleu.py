"""BLEU (Papineni et al. 2002), as sacrebleu computes it (Post 2018)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import CorpusScorer, needs_expected
from adapterbot.importing import extras

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sacrebleu.metrics.bleu import BLEU

_ORDER = 4


class Bleu(CorpusScorer):
    """Corpus BLEU in 0…1; a sample's own score is sentence BLEU with effective order.

    `stats` are answer length, reference length, then matched and then possible 1- to 4-grams.
    """

    name: ClassVar[str] = "bleu"

    tokenize: Literal["13a", "char", "intl", "none", "zh"] = "13a"
    lowercase: bool = False

    def check(self, sample: Sample) -> str | None:
        return needs_expected(sample)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        found = _metric(self.tokenize, self.lowercase).sentence_score(
            answer.text, [sample.expected]
        )
        stats = (found.sys_len, found.ref_len, *found.counts, *found.totals)
        return Scored(found.score / 100, stats=tuple(map(float, stats)))

    def aggregate(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """BP · exp(mean log pₙ), with sacrebleu's `exp` smoothing of orders without a match."""
        import numpy as np

        said, reference = totals[..., 0], totals[..., 1]
        matched, possible = totals[..., 2 : 2 + _ORDER], totals[..., 2 + _ORDER :]
        # The k-th order without a match counts as 1/2ᵏ of a match (NIST; Chen and Cherry 2014).
        unmatched = (matched == 0) & (possible > 0)
        smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), matched)
        usable = (possible > 0).all(axis=-1) & (matched > 0).any(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            brevity = np.where(said < reference, np.exp(1 - reference / said), 1.0)
            bleu = brevity * np.exp(np.log(smoothed / possible).mean(axis=-1))
        return np.where(reference > 0, np.where(usable, bleu, 0.0), np.nan)


@lru_cache(maxsize=8)
def _metric(tokenize: str, lowercase: bool) -> BLEU:
    with extras("eval", "scoring"):
        from sacrebleu.metrics.bleu import BLEU
    return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=True)
