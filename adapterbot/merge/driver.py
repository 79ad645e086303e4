"""The search for the weights of a merge: starting points, generations, a winner, a report.

The evaluator, the clock and the place for checkpoints are handed in, so that the whole of it runs
in a test without a model. Chosen is on one half of the suite; what is reported was measured on the
other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adapterbot.errors import OurFailure
from adapterbot.merge.items import Estimate, Items
from adapterbot.merge.race import Evaluator, OutOfTimeError, Result, evaluate
from adapterbot.merge.restarts import Restarts
from adapterbot.merge.space import Space, Weights
from adapterbot.merge.standing import Candidate, Standing, as_rows
from adapterbot.records.merge import Finalist, StopReason

PATIENCE = 3
_SURE = 2.0
_NARROW = 1 / 3


@dataclass(frozen=True)
class Plan:
    """What a search may do.

    Attributes:
        names: of the adapters, in the order of their weights.
        population: λ.
        generations: the most there may be.
        budget: seconds, the final report included.
        seed: of the splits, the order of items, and the search.
        racing: whether hopeless candidates leave early.
    """

    names: tuple[str, ...]
    population: int
    generations: int
    budget: float
    seed: int
    racing: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of a search."""

    winner: Finalist
    finalists: tuple[Finalist, ...]
    stop: StopReason
    gain: Estimate | None
    standing: Standing
    restarts: int
    selection: int
    report: int


class Driver:
    """One search over the weights of a merge."""

    def __init__(
        self,
        space: Space,
        plan: Plan,
        items: Items,
        evaluator: Evaluator,
        *,
        clock: Callable[[], float],
        save: Callable[[Mapping[str, Any]], None] = lambda _: None,
        told: Callable[[Standing, float], None] = lambda _, __: None,
    ) -> None:
        """
        Args:
            clock: seconds that only ever grow.
            save: keeps a checkpoint, after the starting points and after every generation.
            told: is told where the search stands, and how many seconds are left.
        """
        self._space, self._plan, self._items = space, plan, items
        self._evaluator = evaluator
        self._clock, self._save, self._told = clock, save, told
        rng = np.random.default_rng(plan.seed)
        self.selection, self.report = items.split(rng)
        self._standing = Standing()
        self._search: Restarts | None = None
        self._started = clock()
        self._each = 0.0  # seconds of an answer, up to the last generation

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint, bit for bit as the search that wrote it would have."""
        self._standing = standing = Standing.from_state(state)
        self._each = standing.seconds / max(standing.evaluated, 1)
        self._search = Restarts.from_state(state["search"])

    def state(self) -> dict[str, Any]:
        """Everything that `resume` needs, as JSON.

        Raises:
            ValueError: the starting points were not evaluated yet.
        """
        if self._search is None:
            raise ValueError("there is nothing to save before the starting points")
        return {**self._standing.state(seconds=self.elapsed), "search": self._search.state()}

    @property
    def elapsed(self) -> float:
        """Seconds so far, those before a resume included."""
        return self._standing.seconds + self._clock() - self._started

    def run(self) -> Outcome:
        """Searches until it has converged, or generations or budget are spent.

        An interrupt (Ctrl-C) ends the search and not the run: the best so far is the winner then,
        and the report split is not asked.

        Raises:
            OurFailure: every starting point failed, or every candidate since.
        """
        try:
            if self._search is None:
                self._start()
            stop = self._generations()
        except KeyboardInterrupt:
            if self._standing.best is None:
                raise
            return self._finish(StopReason.INTERRUPTED)
        return self._finish(stop)

    def _start(self) -> None:
        """Scores what softmax cannot reach, or reaches anyhow: every single adapter, uniform."""
        space, standing = self._space, self._standing
        points = [(self._called("uniform"), space.uniform())]
        points += [(name, space.single(i)) for i, name in enumerate(self._plan.names)]
        results = evaluate(
            self._evaluator, [weights for _, weights in points], self._items, self.selection
        )
        standing.starts = [
            Candidate(name, weights, result)
            for (name, weights), result in zip(points, results, strict=True)
        ]
        self._note([weights for _, weights in points], results, sigma=space.sigma)
        if all(result.failed for result in results):
            raise OurFailure(
                f"every starting point failed to evaluate: {results[0].failed}",
                fix="evaluate one of the adapters with `adapterbot gate` to see why",
            )
        singles = np.array([one.result.score for one in standing.starts[1:]])
        guess = space.first_guess(singles) if np.isfinite(singles).any() else space.uniform()
        self._search = Restarts(
            space.point(guess),
            space.sigma,
            self._plan.population,
            seed=self._plan.seed,
        )
        self._save(self.state())

    def _generations(self) -> StopReason:
        search = self._search
        if search is None:
            raise ValueError("the search has not begun")
        while len(self._standing.history) - 1 < self._plan.generations:
            if self._converged():
                return StopReason.CONVERGED
            if self._late():
                return StopReason.BUDGET
            before = search.state()
            points = search.ask()
            candidates = [self._space.weights(point) for point in points]
            number = len(self._standing.history)
            order = self._items.interleaved(
                self.selection, np.random.default_rng([self._plan.seed, number])
            )
            try:
                results = evaluate(
                    self._evaluator,
                    candidates,
                    self._items,
                    order,
                    survivors=max(1, len(points) // 2) if self._plan.racing else None,
                    late=self._late,
                )
            except (OutOfTimeError, KeyboardInterrupt) as error:
                # A partial generation counts for nothing: a resumed run asks it again.
                self._search = Restarts.from_state(before)
                if isinstance(error, OutOfTimeError):
                    return StopReason.BUDGET
                raise
            search.tell(points, [-r.score if r.failed is None else math.inf for r in results])
            self._note(candidates, results, sigma=search.search.width)
            self._save(self.state())
        return StopReason.GENERATIONS

    def _note(
        self, candidates: Sequence[Weights], results: Sequence[Result], *, sigma: float
    ) -> None:
        self._standing.note(candidates, results, asked=len(self.selection), sigma=sigma)
        self._each = self.elapsed / max(self._standing.evaluated, 1)
        self._told(self._standing, self._plan.budget - self.elapsed)

    def _gain(self) -> Estimate | None:
        """By how much the best beats the best starting point, and its 95 % interval."""
        best = self._standing.best
        if best is None:
            return None
        start = self._standing.best_start
        return self._items.difference(
            (best.result.scores - start.result.scores)[self.selection], self.selection
        ).interval

    def _converged(self) -> bool:
        """No better one for three generations although the search has narrowed, and the gain is
        larger than what is not known of it: noise alone also stops improving."""
        history = self._standing.history
        if len(history) <= PATIENCE or history[-1].sigma > _NARROW * self._space.sigma:
            return False
        if history[-1].best_so_far != history[-1 - PATIENCE].best_so_far:
            return False
        gain = self._gain()
        return gain is not None and gain.mean > 0 and gain.high - gain.low <= gain.mean

    def _late(self) -> bool:
        """Whether the budget is spent, but for what the final report will take."""
        finalists = len(self._plan.names) + 3
        final = self._each * finalists * (len(self.selection) / 4 + len(self.report))
        return self.elapsed + final >= self._plan.budget

    def _finish(self, stop: StopReason) -> Outcome:
        """The winner on the selection split, and everybody of interest on the other."""
        standing, search = self._standing, self._search
        if standing.best is None or search is None:
            raise OurFailure("no candidate could be evaluated", fix="see the failures above")
        finalists, held = [*standing.starts], standing.best_start
        # Of a search that found nothing better than where it began, the centre is led by nothing.
        if standing.best.result.score > held.result.score:
            held = replace(standing.best, name=self._called(standing.best.name))
            finalists.append(held)
            if stop is not StopReason.INTERRUPTED:
                mean = self._space.weights(search.centre)
                (result,) = evaluate(self._evaluator, [mean], self._items, self.selection)
                centre = Candidate(self._called("mean of the search"), mean, result)
                finalists.append(centre)
                if result.failed is None:
                    # What it lacks to a start, it has lost on its way.
                    held = max(standing.best_start, centre, key=lambda one: one.result.score)
        winner = self._winner(finalists, held)
        rows = self._measured(finalists, ask=stop is not StopReason.INTERRUPTED)
        return Outcome(
            winner=rows[finalists.index(winner)],
            finalists=tuple(rows),
            stop=stop,
            gain=self._gain(),
            standing=standing,
            restarts=search.restarts,
            selection=len(self.selection),
            report=len(self.report),
        )

    def _called(self, name: str) -> str:
        """A name of ours that no adapter has: the winner goes by its name."""
        while name in self._plan.names:
            name += "'"
        return name

    def _winner(self, finalists: Sequence[Candidate], held: Candidate) -> Candidate:
        """`held`, the better of the centre of the search and its best start, or the best where
        there is no centre, unless another is better by two standard errors.

        The best of many noisy scores owes much of them to luck; the centre is an average.
        """
        sound = [one for one in finalists if one.result.failed is None]
        for other in sorted(sound, key=lambda one: -one.result.score):
            gain = self._items.difference(
                (other.result.scores - held.result.scores)[self.selection], self.selection
            )
            if gain.mean > max(_SURE * gain.error, 0.0):
                return other
        return held

    def _measured(self, finalists: Sequence[Candidate], *, ask: bool) -> list[Finalist]:
        results: Sequence[Result | None] = [None] * len(finalists)
        if ask:
            weights = [one.weights for one in finalists]
            results = evaluate(self._evaluator, weights, self._items, self.report)
        parent = max(self._standing.starts[1:], key=lambda one: one.result.score)
        # Without it the next best would be called the best.
        reference = results[finalists.index(parent)]
        if reference and reference.failed is not None:
            reference = None
        return [
            self._row(one, result, reference)
            for one, result in zip(finalists, results, strict=True)
        ]

    def _row(self, one: Candidate, result: Result | None, reference: Result | None) -> Finalist:
        row: dict[str, Any] = {
            "name": one.name,
            "weights": as_rows(one.weights),
            "selection": one.result.score if one.result.failed is None else None,
            "failed": one.result.failed or (result.failed if result else None),
        }
        if result is not None and result.failed is None:
            row["report"] = result.score
            if reference is not None:
                change = (result.scores - reference.scores)[self.report]
                found = self._items.difference(change, self.report)
                row["difference"], row["low"], row["high"] = found.interval
        return Finalist.model_validate(row)
