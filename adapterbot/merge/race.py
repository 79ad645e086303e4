"""One generation evaluated: everybody on the same items, and the hopeless sent home. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from adapterbot.merge.items import IntArray, Items
from adapterbot.merge.space import FloatArray, Weights

# A candidate leaves when it is behind the last survivor by so many standard errors, and not sooner
# than after so many items: below that, the standard error itself is a guess.
_BEHIND = 3.0
_LEAST_SEEN = 24
_CHUNK = 32
_CHUNK_UNRACED = 128  # nobody is dropped in between, and fuller batches cost less


@dataclass(frozen=True)
class Failed:
    """Why a candidate has no score."""

    reason: str


class Evaluator(Protocol):
    """Scores candidates. Handed in: this package knows no model."""

    def scores(
        self, candidates: Sequence[Weights], items: Sequence[int]
    ) -> Sequence[FloatArray | Failed]:
        """For each candidate one score per item, higher is better; or why there is none."""


@dataclass(frozen=True)
class Result:
    """What a candidate came to.

    Attributes:
        score: its mean over all items; estimated from those it saw, if it left early.
        scores: (n,) item by item, NaN where it was not asked.
        failed: why it has no score; `score` is then −inf.
        asked: how many items it was asked.
    """

    score: float
    scores: FloatArray
    failed: str | None
    asked: int


class OutOfTimeError(Exception):
    """The budget ended within a generation, which then counts for nothing."""


def evaluate(
    evaluator: Evaluator,
    candidates: Sequence[Weights],
    items: Items,
    order: IntArray,
    *,
    survivors: int | None = None,
    late: Callable[[], bool] | None = None,
) -> list[Result]:
    """Scores of a population on the items of `order`, in that order, and in chunks where it may end
    early.

    Args:
        survivors: how many of the best must be told apart exactly; the others are dropped once
            they are far behind. None drops nobody.
        late: asked before each chunk; None if time does not count.

    Raises:
        OutOfTimeError: `late` said so.
    """
    table = np.full((len(candidates), len(order)), np.nan)
    failed: dict[int, str] = {}
    alive = list(range(len(candidates)))
    chunk = _CHUNK if survivors else _CHUNK_UNRACED if late else len(order)
    done = 0
    while done < len(order) and alive:
        if late and late():
            raise OutOfTimeError
        part = order[done : done + chunk]
        answers = evaluator.scores([candidates[i] for i in alive], part.tolist())
        for index, answer in zip(list(alive), answers, strict=True):
            if isinstance(answer, Failed):
                failed[index] = answer.reason
                alive.remove(index)
            else:
                table[index, done : done + len(part)] = answer
        done += len(part)
        if survivors and done < len(order):
            alive = _kept(table[:, :done], alive, items, order[:done], survivors)
    return [
        _result(table, index, items, order, failed.get(index)) for index in range(len(candidates))
    ]


def _kept(
    table: FloatArray, alive: list[int], items: Items, seen: IntArray, survivors: int
) -> list[int]:
    """Who stays: the best, and whoever may still be one of them."""
    if len(seen) < _LEAST_SEEN or len(alive) <= survivors:
        return alive
    ranked = sorted(alive, key=lambda index: -items.mean(table[index], seen))
    last = ranked[survivors - 1]
    kept = ranked[:survivors]
    for index in ranked[survivors:]:
        gap = items.difference(table[last] - table[index], seen)
        if gap.mean - _BEHIND * gap.error <= 0:
            kept.append(index)
    return sorted(kept)


def _result(
    table: FloatArray, index: int, items: Items, order: IntArray, failed: str | None
) -> Result:
    row = table[index]
    asked = ~np.isnan(row)
    scores = np.full(len(items), np.nan)
    scores[order] = row
    if failed is not None or not asked.any():
        return Result(-np.inf, scores, failed or "was not asked anything", int(asked.sum()))
    score = items.mean(row[asked], order[asked])
    if not asked.all():
        # What the rest would have been: as those who stayed found it, less the gap so far.
        complete = ~np.isnan(table).any(axis=1)
        if complete.any():
            stayed = table[complete]
            rest = np.mean(
                [items.mean(r, order) - items.mean(r[asked], order[asked]) for r in stayed]
            )
            score += float(rest)
    return Result(score, scores, None, int(asked.sum()))
