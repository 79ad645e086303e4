"""Whether it broke in one step or came slowly: the evidence of a rise over many checkpoints.

A search supposes one change. On a slow rise it still ends at some checkpoint, surely and wrongly,
so what was asked is weighed again under both shapes: a step anywhere, and a straight rise over an
eighth of the history, a quarter, a half or all of it. A step that is true makes odds of twenty to
one against it in one search of twenty at most, whatever was asked and whenever it ended (Ville's
inequality holds for a ratio of marginal likelihoods).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapterbot.bisect.evidence import Floats, Graded

# Odds at which a rise is said to be one.
ODDS = 20.0
_WIDTHS = (1.0, 0.5, 0.25, 0.125)
_NARROWEST = 4


@dataclass(frozen=True)
class Observed:
    """Outcomes of one kind: the indices that were asked, (K,) in order, and the sums of their
    statistics, (K, width)."""

    model: Graded
    at: NDArray[np.intp]
    sums: Floats


@dataclass(frozen=True)
class Rise:
    """A rise from index `start`, which is as good as the oldest, to `end`, as bad as the newest.

    Attributes:
        odds: of a rise against one step, both as likely beforehand.
    """

    start: int
    end: int
    odds: float

    @property
    def certain(self) -> bool:
        """Whether it is to be said."""
        return self.odds >= ODDS

    def shares(self, n: int) -> Floats:
        """(n,) how far each index has gone from good to bad."""
        return np.clip((np.arange(n) - self.start) / (self.end - self.start), 0.0, 1.0)


def rise(n: int, observed: Sequence[Observed], prior: Floats) -> Rise | None:
    """The likeliest rise of n checkpoints; None where there are too few for one.

    Args:
        prior: (n + 1,) weights of the change points.
    """
    bounds = _rises(n)
    if not len(bounds):
        return None
    asked = np.unique(np.concatenate([one.at for one in observed]))
    # Steps between the same two indices that were asked are the same to the evidence.
    steps = np.unique(np.searchsorted(asked, np.arange(n + 1)), return_index=True)[1]
    weights = np.add.reduceat(prior, steps)
    starts, ends = bounds.T
    log_rise = np.zeros(len(bounds))
    log_step = np.zeros(len(steps))
    for one in observed:
        shares = (one.at - starts[:, None]) / (ends - starts)[:, None]
        log_rise += one.model.along(np.clip(shares, 0.0, 1.0), one.sums)
        log_step += one.model.along((one.at >= steps[:, None]).astype(np.float64), one.sums)
    widths, of, count = np.unique(ends - starts, return_inverse=True, return_counts=True)
    log_prior = -np.log(len(widths) * count[of])
    with np.errstate(divide="ignore"):
        log_odds = _log_sum(log_rise + log_prior) - _log_sum(
            log_step + np.log(weights / weights.sum())
        )
    best = int(np.argmax(log_rise + log_prior))
    return Rise(
        start=max(int(starts[best]), 0),
        end=min(int(ends[best]), n - 1),
        odds=float(np.exp(np.clip(log_odds, -700.0, 700.0))),
    )


def _rises(n: int) -> NDArray[np.intp]:
    """(R, 2) of first and last index, a quarter of their width apart; −1 and n lie outside."""
    found = []
    for width in dict.fromkeys(round(share * (n + 1)) for share in _WIDTHS):
        if width >= _NARROWEST:
            starts = np.linspace(-1, n - width, 1 + round(4 * (n + 1 - width) / width))
            found += [(start, start + width) for start in dict.fromkeys(np.rint(starts).tolist())]
    return np.array(found, dtype=np.intp).reshape(-1, 2)


def _log_sum(values: Floats) -> float:
    return float(np.logaddexp.reduce(values))
