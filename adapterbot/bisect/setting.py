"""How a search judges outcomes, as it is written into its journal: replayed, it finds the same."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import numpy as np
from pydantic import Field

from adapterbot.bisect.evidence import Outcomes
from adapterbot.bisect.pass_fail import Exact, PassFail
from adapterbot.bisect.posterior import Posterior
from adapterbot.bisect.priors import uniform
from adapterbot.bisect.scores import PairedBinary, Scores
from adapterbot.records.base import Count, Finite, Line, Probability, Record


class Model(StrEnum):
    """What outcomes of one kind are."""

    PASS_FAIL = "pass_fail"  # noqa: S105 - no password
    EXACT = "exact"
    HIGHER_IS_BAD = "higher_is_bad"
    LOWER_IS_BAD = "lower_is_bad"
    PAIRED_BINARY = "paired_binary"


# In standard deviations: the least that a score must get worse to count as broken, where it can be
# asked for without end. Without one a search that finds nothing would have none.
_LEAST = 0.5
_MODELS: dict[Model, Callable[[Kind], Outcomes]] = {
    Model.PASS_FAIL: lambda _: PassFail(),
    Model.EXACT: lambda _: Exact(),
    Model.HIGHER_IS_BAD: lambda kind: Scores(higher_is_bad=True, least=kind.least),
    Model.LOWER_IS_BAD: lambda kind: Scores(higher_is_bad=False, least=kind.least),
    Model.PAIRED_BINARY: lambda kind: PairedBinary(kind.churn),
}


class Kind(Record):
    """One kind of outcome. `room`: how many one checkpoint can give (None: any number); `size`: how
    many one probe brings; `churn`: share of samples expected to differ between good checkpoints."""

    model: Model
    churn: Annotated[float, Field(gt=0, lt=1)] = 0.05
    shown: Line = ""
    room: Count | None = None
    size: Annotated[int, Field(ge=1, le=10_000)] = 1

    @property
    def least(self) -> float:
        """By how many standard deviations a score must get worse to count as broken."""
        return _LEAST if self.room is None else 0.0


class Setting(Record):
    """Everything that decides what outcomes mean.

    Attributes:
        by: what probes: the command, or the suite's digest.
        first_good: the oldest checkpoint is known to be good, or assumed to be.
        last_bad: the newest is known to be bad, or assumed to be.
        prior: weights of the n + 1 change points; None prefers none.
    """

    by: str = Field(max_length=32 * 1024)
    kinds: tuple[Kind, ...] = Field(min_length=1, max_length=64)
    first_good: bool = False
    last_bad: bool = False
    confidence: Probability = 0.95
    prior: tuple[Finite, ...] | None = None

    def posterior(self, n: int) -> Posterior:
        """The posterior of n checkpoints before anything was probed.

        Raises:
            ValueError: the prior is not one of n checkpoints.
        """
        prior = np.asarray(self.prior or uniform(n), dtype=np.float64).copy()
        if prior.shape == (n + 1,):
            prior[0] *= not self.first_good
            prior[n] *= not self.last_bad
        return Posterior(
            n,
            [_MODELS[kind.model](kind) for kind in self.kinds],
            prior=prior,
            room=[np.inf if kind.room is None else float(kind.room) for kind in self.kinds],
        )

    @property
    def sizes(self) -> tuple[float, ...]:
        """How many outcomes a probe of each kind brings."""
        return tuple(float(kind.size) for kind in self.kinds)
