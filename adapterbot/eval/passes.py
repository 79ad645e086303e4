"""Whole batches on one loaded model: what a respondent has computed, here or on a worker. (torch)

Requests and results are plain values, so that a batch can be sent anywhere; a batch of the same
requests gives the same digits wherever the same library computes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapterbot.eval.base_model import BaseModel
from adapterbot.eval.forward import Forward
from adapterbot.eval.generation import GenerationRequest, Generator
from adapterbot.eval.loglikelihood import (
    LONGEST_TREE,
    Likelihood,
    LikelihoodRequest,
    loglikelihoods,
)
from adapterbot.eval.questions import Ids
from adapterbot.eval.reading import Reader


@dataclass(frozen=True)
class Limits:
    """What decides which requests a model can take, and how many together.

    Attributes:
        device: its type, such as `cuda`.
        context: how many positions it has, None for no limit known.
        holes: how long a row may be that has masked positions between those that count.
        trees: how long one may be in which continuations of a context lie as a tree; 0 for none.
    """

    device: str
    context: int | None
    holes: int
    trees: int


class Passes(Protocol):
    """One batch at a time, in its order."""

    @property
    def limits(self) -> Limits:
        """What the model can take."""

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids | None]:
        """As `Generator.answer`."""

    def check(self, requests: Sequence[GenerationRequest]) -> list[tuple[Ids | None, bool]]:
        """As `Generator.check`."""

    def loglikelihoods(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[Likelihood, ...]]:
        """As `loglikelihood.loglikelihoods`."""

    def forget(self) -> None:
        """There will be another adapter under the base."""


class LocalPasses:
    """On the model of this process."""

    def __init__(self, base: BaseModel, text: Callable[[Ids], str]) -> None:
        self._base = base
        self._forward = Forward(base.model)
        self._reader = Reader(base, self._forward)
        self._generator = Generator(base, self._forward, self._reader, text)

    def steer(self, by: Callable[[Sequence[int]], None] | None) -> None:
        """Before a pass, `by` is told which variant of the model every row is for, unless they are
        for the same as those of the pass before."""
        told: tuple[int, ...] = ()

        def steered(variants: Sequence[int]) -> None:
            nonlocal told
            if by and told != (rows := tuple(variants)):
                by(rows)
                told = rows

        self._forward.steer = steered if by else None

    @property
    def limits(self) -> Limits:
        holes = min(self._forward.window or sys.maxsize, self._forward.turn)
        return Limits(
            device=self._base.device.type,
            context=self._base.context,
            holes=holes if self._forward.tolerates_holes(0) else -1,
            trees=min(holes, LONGEST_TREE) if self._forward.tolerates_trees(0) else 0,
        )

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Ids | None]:
        return self._generator.answer(requests)

    def check(self, requests: Sequence[GenerationRequest]) -> list[tuple[Ids | None, bool]]:
        return self._generator.check(requests)

    def loglikelihoods(self, requests: Sequence[LikelihoodRequest]) -> list[tuple[Likelihood, ...]]:
        return loglikelihoods(self._base, self._forward, self._reader, requests)

    def forget(self) -> None:
        self._reader.forget()
