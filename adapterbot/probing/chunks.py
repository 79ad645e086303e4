"""Probes in process: a chunk of samples that a checkpoint has not been asked yet, paired with the
good end's scores on the same samples.

One loaded base, one swap of adapter weights for each probe. An eval repeats itself, so no sample is
asked twice of one checkpoint; the order in which they are asked differs from one to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from adapterbot.bisect import (
    Archive,
    Checkpoint,
    Entry,
    Kind,
    Model,
    Observation,
    Query,
    expected_churn,
)
from adapterbot.delta import cluster_of
from adapterbot.errors import InputError
from adapterbot.eval.evaluation import Ask
from adapterbot.eval.suite import Task
from adapterbot.records import Direction, ScoreKind, TaskResult
from adapterbot.weights.peft_dir import read_adapter_dir
from adapterbot.wording import level

if TYPE_CHECKING:
    from adapterbot.probing.evaluator import Evaluator, ParallelEvaluator

# Small chunks need fewer samples, large ones fewer passes; eight cost a pass of one short batch.
CHUNK = 8


@dataclass(frozen=True)
class Series:
    """One broken metric.

    Attributes:
        good: the good end's scores by sample id.
        units: what is asked together and counts once, with its mean: a sample, or the samples of a
            cluster. Each row of one document for itself would tell what the others told already.
        binary: whether outcomes are better, the same or worse; else they are numbers.
    """

    shown: str
    task: Task
    good: Mapping[str, float]
    units: Sequence[Sequence[str]]
    direction: Direction
    binary: bool

    @classmethod
    def of(cls, shown: str, task: Task, slice_: str | None, good: TaskResult) -> Series:
        """The samples of a metric, or of a slice of it, that the good end could be scored on."""
        scores: dict[str, float] = {}
        units: dict[Hashable, list[str]] = {}
        for sample in sorted(good.samples, key=lambda sample: sample.sample_id):
            if slice_ in (None, sample.slice) and sample.score is not None:
                scores[sample.sample_id] = sample.score
                units.setdefault(cluster_of(sample), []).append(sample.sample_id)
        binary = good.kind is ScoreKind.BINARY and set(scores.values()) <= {0.0, 1.0}
        alone = len(units) == len(scores)
        return cls(shown, task, scores, tuple(units.values()), good.direction, binary and alone)

    @property
    def size(self) -> int:
        """How many units a probe asks."""
        return max(1, round(CHUNK * len(self.units) / max(len(self.good), 1)))

    def kind(self, bad: TaskResult) -> Kind:
        """How differences from the good end come about, and how many there can be.

        What got better at the bad end says how much samples change for no reason.
        """
        return Kind(
            model=Model.PAIRED_BINARY if self.binary else Model.HIGHER_IS_BAD,
            shown=self.shown,
            churn=expected_churn(self.harms(bad)),
            room=len(self.units),
            size=self.size,
        )

    def harms(self, result: TaskResult) -> np.ndarray:
        """How much worse each unit is than at the good end, (units that have a score,)."""
        scores = {s.sample_id: s.score for s in result.samples if s.score is not None}
        means = (
            [scores[name] - self.good[name] for name in unit if name in scores]
            for unit in self.units
        )
        return np.array([self.direction.worse * np.mean(mean) for mean in means if mean])


class Chunks:
    """Probes checkpoints of an archive; each series is a kind of outcome.

    May be called from several threads, where the evaluator can do several things at once: each gets
    one of its own.

    Attributes:
        answers: what each checkpoint was asked, by its index.
    """

    def __init__(
        self,
        archive: Archive,
        checkpoints: Sequence[Checkpoint],
        series: Sequence[Series],
        good: Sequence[TaskResult],
        evaluator: Evaluator,
        before: Iterable[Entry] = (),
    ) -> None:
        """`before`: the probes of the search that this one goes on with."""
        self._archive = archive
        self._checkpoints = checkpoints
        self._series = series
        self._good = good
        self._evaluators = threading.local()
        self._evaluators.mine = evaluator
        self._first = evaluator
        self._choosing = threading.Lock()
        self._next: dict[tuple[int, int], int] = {}
        for entry in before:
            probed = entry.index, entry.kind
            self._next[probed] = max(entry.until, self._next.get(probed, 0))
        self.answers: dict[int, list[TaskResult]] = {}

    def __call__(self, index: int, kind: int, seen: int) -> Observation:
        """Ask one checkpoint the next samples of one series."""
        with ExitStack() as stack:
            try:
                ask = self._ask(stack, index, kind, seen)
                if isinstance(ask, Observation):
                    return ask
                (result,) = self._evaluator().evaluate(
                    [ask.task], ask.adapter, drafts=self._good, samples={ask.task.name: ask.samples}
                )
            except InputError as error:
                return Observation(None, error.message)
        return self._observed(index, kind, result)

    def together(self, probes: Sequence[Query]) -> list[Observation]:
        """Several probes at once: rows of one batch, under their own adapters, where those allow
        it."""
        found: dict[int, Observation] = {}
        asks: dict[int, Ask] = {}
        with ExitStack() as stack:
            for place, query in enumerate(probes):
                try:
                    ask = self._ask(stack, *query)
                except InputError as error:
                    ask = Observation(None, error.message)
                if isinstance(ask, Observation):
                    found[place] = ask
                else:
                    asks[place] = ask
            for place, result in self._answered(asks):
                query = probes[place]
                found[place] = (
                    Observation(None, result.message)
                    if isinstance(result, InputError)
                    else self._observed(query.checkpoint, query.kind, result)
                )
        return [found[place] for place in range(len(probes))]

    def _answered(self, asks: Mapping[int, Ask]) -> Iterator[tuple[int, TaskResult | InputError]]:
        evaluator = self._evaluator()
        try:
            results = evaluator.evaluate_together(list(asks.values()), drafts=self._good)
            yield from zip(asks, results, strict=True)
            return
        except InputError:
            pass  # of one of them: asked one by one, it is skipped alone
        for place, ask in asks.items():
            try:
                yield place, evaluator.evaluate_together([ask], drafts=self._good)[0]
            except InputError as error:
                yield place, error

    def _ask(self, stack: ExitStack, index: int, kind: int, seen: int) -> Ask | Observation:
        """What to ask a checkpoint, which is on disk until `stack` is left."""
        series, checkpoint = self._series[kind], self._checkpoints[index]
        asked = self._unasked(index, kind, seen)
        if not asked:
            return Observation(None, f"{series.shown}: no samples are left")
        with self._choosing:  # a tree writes the same file once
            path = stack.enter_context(self._archive.opened(checkpoint))
        return Ask(series.task, read_adapter_dir(path, shown=checkpoint.path), asked)

    def _observed(self, index: int, kind: int, result: TaskResult) -> Observation:
        series = self._series[kind]
        self.answers.setdefault(index, []).append(result)
        harms = series.harms(result)
        order = self._order(index, kind)
        asked = {sample.sample_id for sample in result.samples}
        until = 1 + max(place for place, unit in enumerate(order) if not asked.isdisjoint(unit))
        if not len(harms):
            return Observation(None, f"{series.shown}: no sample could be scored", until=until)
        scores = [s.score for s in result.samples if s.score is not None]
        mean = level(float(np.mean(scores)), result.unit)
        shown = f"{series.shown} {mean} on {len(scores)} samples"
        return Observation(harms, shown, until=until)

    def _order(self, index: int, kind: int) -> list[Sequence[str]]:
        """The units of a series, as a checkpoint is asked them."""
        units = self._series[kind].units
        order = np.random.default_rng([index, kind]).permutation(len(units))
        return [units[place] for place in order]

    def _unasked(self, index: int, kind: int, seen: int) -> list[str]:
        """The next samples of a series that a checkpoint has not been asked."""
        order = self._order(index, kind)
        with self._choosing:
            # A sample without a score is not counted as seen, but has been asked.
            start = max(seen, self._next.get((index, kind), 0))
            asked = order[start : start + self._series[kind].size]
            self._next[index, kind] = start + len(asked)
        return [name for unit in asked for name in unit]

    def _evaluator(self) -> Evaluator:
        """This thread's evaluator."""
        if not hasattr(self._evaluators, "mine"):
            # Several threads are only begun where the evaluator is a parallel one.
            self._evaluators.mine = cast("ParallelEvaluator", self._first).beside()
        mine: Evaluator = self._evaluators.mine
        return mine
