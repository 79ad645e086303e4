"""Where a search stands: who was tried, who is best, and how a checkpoint keeps all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapterbot.merge import checkpoint
from adapterbot.merge.race import Result
from adapterbot.merge.space import Weights
from adapterbot.records.merge import Failure, Generation

_FAILURES_KEPT = 100
_REASON_KEPT = 2000


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights with a name and what they scored on the selection split."""

    name: str
    weights: Weights
    result: Result


@dataclass
class Standing:
    """Where the search stands; all that a checkpoint holds besides the search itself.

    Attributes:
        starts: what needs no search: uniform weights, and every adapter by itself.
        best: the best of those that were asked everything.
        history: by generation; the starts are generation 0.
        failures: the first of them; `failed` counts all.
        candidates: how many were tried.
        evaluated: how many answers that took.
        seconds: of earlier runs.
    """

    starts: list[Candidate] = field(default_factory=list)
    best: Candidate | None = None
    history: list[Generation] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    candidates: int = 0
    evaluated: int = 0
    seconds: float = 0.0

    @property
    def best_start(self) -> Candidate:
        """The best of what needs no search."""
        return max(self.starts, key=lambda start: start.result.score)

    def note(
        self,
        candidates: Sequence[Weights],
        results: Sequence[Result],
        *,
        asked: int,
        sigma: float,
    ) -> None:
        """Books the next generation; a new best must have been asked all of the `asked` items."""
        number = len(self.history)
        for weights, result in zip(candidates, results, strict=True):
            if result.failed is not None:
                self._fail(number, weights, result.failed)
            elif result.asked == asked and (
                self.best is None or result.score > self.best.result.score
            ):
                self.best = Candidate("best candidate", weights, result)
        good = [result for result in results if result.failed is None]
        answers = sum(result.asked for result in results)
        self.candidates += len(results)
        self.evaluated += answers
        self.history.append(
            Generation(
                generation=number,
                population=len(results),
                evaluated=answers,
                best=max((result.score for result in good), default=None),
                mean=float(np.mean([result.score for result in good])) if good else None,
                best_so_far=self.best.result.score if self.best else None,
                sigma=sigma,
                failed=len(results) - len(good),
                dropped=sum(result.asked < asked for result in good),
            )
        )

    def _fail(self, generation: int, weights: Weights, reason: str) -> None:
        self.failed += 1
        if len(self.failures) < _FAILURES_KEPT:
            self.failures.append(
                Failure(
                    generation=generation, weights=as_rows(weights), reason=reason[:_REASON_KEPT]
                )
            )

    def state(self, *, seconds: float) -> dict[str, Any]:
        """As JSON; `seconds` are those of this run and all before it."""
        return {
            "starts": [_packed(one) for one in self.starts],
            "best": _packed(self.best) if self.best else None,
            "history": [one.model_dump(mode="json") for one in self.history],
            "failures": [one.model_dump(mode="json") for one in self.failures],
            "failed": self.failed,
            "candidates": self.candidates,
            "evaluated": self.evaluated,
            "seconds": seconds,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Standing:
        """What `state` wrote."""
        return cls(
            starts=[_unpacked(one) for one in state["starts"]],
            best=_unpacked(state["best"]) if state["best"] else None,
            history=[Generation.model_validate(one) for one in state["history"]],
            failures=[Failure.model_validate(one) for one in state["failures"]],
            failed=state["failed"],
            candidates=state["candidates"],
            evaluated=state["evaluated"],
            seconds=state["seconds"],
        )


def as_rows(weights: Weights) -> tuple[tuple[float, ...], ...]:
    """Weights (groups, adapters) as a record has them."""
    return tuple(tuple(row) for row in weights.tolist())


def _packed(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "weights": one.weights.tolist(),
        "result": checkpoint.pack(one.result),
    }


def _unpacked(content: Mapping[str, Any]) -> Candidate:
    return Candidate(
        content["name"], np.array(content["weights"]), checkpoint.unpack(content["result"])
    )
