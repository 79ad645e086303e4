"""An evaluation: every task's samples asked, scored and remembered, whoever answers them.

`Evaluation.evaluate` knows what is cached, which adapter must be under the base and what may serve
as drafts. How an answer comes about is the `Model`'s; whether it is right is `scorers`'. No torch
here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from adapterbot.errors import OurFailure
from adapterbot.eval.answers import Sample
from adapterbot.eval.cache import CacheKey, ScoreCache, Unsaved
from adapterbot.eval.questions import (
    Composite,
    Identity,
    Ids,
    Model,
    Question,
    Shared,
    SideBySide,
    Subject,
    Waiting,
    digest_of,
)
from adapterbot.eval.questions import parts as parts_of
from adapterbot.eval.scoring import scored, scorer_of
from adapterbot.eval.suite import Selection, Task, selected
from adapterbot.records import EvalStats, SampleScore, TaskResult
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir
from adapterbot.weights.trained_on import check_base

# Raised when the same base, adapter and task would be answered in another way: old caches miss.
ALGORITHM = 7


@dataclass(frozen=True)
class Ask:
    """Samples of one task, by id, and the adapter that they are put to."""

    task: Task
    adapter: AdapterFiles
    samples: Sequence[str]


@dataclass(frozen=True)
class _Part:
    """Samples of one task for one variant of the model, and where their scores are kept."""

    task: Task
    samples: Sequence[Sample]
    key: CacheKey
    variant: int = 0


class Evaluation:
    """A model and what it takes to evaluate adapters with it; a context manager.

    Attributes:
        asked: how many samples `evaluate` was asked for so far.
        cached: how many of them came from the cache.
    """

    def __init__(self, model: Model, *, cache: ScoreCache | None = None) -> None:
        """
        Args:
            cache: where scores are kept between runs; without one nothing is.
        """
        self.asked = 0
        self.cached = 0
        self._model = model
        self._cache = cache
        self._seconds = 0.0
        self._written: dict[tuple[str, str], tuple[str, Ids]] = {}
        self._beside: list[Evaluation] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes every adapter off the base, and lets go of the model."""
        self._model.close()

    def stats(self) -> EvalStats:
        """Device, precision, samples and seconds so far."""
        return EvalStats(
            device=self._model.device,
            gpus=self._model.gpus,
            dtype=self._model.dtype,
            samples=self.asked + sum(other.asked for other in self._beside),
            cached=self.cached + sum(other.cached for other in self._beside),
            seconds=round(self._seconds, 3),
        )

    @property
    def parallel(self) -> bool:
        """Whether several adapters can be evaluated at the same time."""
        return isinstance(self._model, Shared)

    def beside(self) -> Evaluation:
        """Another evaluation with the same model, to be made and used by one other thread. Its
        results are to the digit those of this one, whose `stats` tell of both.

        Raises:
            OurFailure: the model has room for one adapter at a time.
        """
        if not isinstance(self._model, Shared):
            raise OurFailure("one device computes one thing at a time", fix="use --ray")
        other = Evaluation(self._model.beside(), cache=self._cache and self._cache.beside())
        self._beside.append(other)
        return other

    def evaluate(
        self,
        tasks: Sequence[Task],
        adapter: Path | Subject | None,
        *,
        drafts: Sequence[TaskResult] | None = None,
        samples: Selection | None = None,
        afresh: bool = False,
        variants: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskResult, ...]:
        """Every sample of every task, answered and scored under one adapter.

        Args:
            adapter: a PEFT directory, or what `read_adapter_dir` said of it (errors then name it
                as it was named there), or a composite; None for the bare base.
            drafts: what another adapter answered. Where this one says the same, its answer costs
                one forward pass; the results do not depend on it.
            samples: the ids to ask of each task; a task that is not named is asked nothing. None
                asks everything. The cache is the same, so no sample is ever answered twice.
            afresh: ask as if nothing had been answered before, in batches of another
                composition. What comes of it is kept apart.
            variants: to which of the model's variants each of `tasks` is put; all to the first.
            progress: called with (samples done, samples in all).

        Returns: one result per task, its samples in suite order.

        Raises:
            InputError: the adapter is broken, of an unsupported kind, or for another base.
            OurFailure: one sample alone does not fit into the device's memory.
        """
        files = read_adapter_dir(adapter) if isinstance(adapter, Path) else adapter
        digest = digest_of(files)
        self._check(files)
        identity = self._model.identity()
        parts = [
            _Part(task, selected(task, samples), _key(identity, task, digest, afresh), variant)
            for task, variant in zip(tasks, variants or [0] * len(tasks), strict=True)
        ]
        self._load_for(parts)
        under = partial(self._model.under, files, digest)
        with self._timed():
            return self._answer(parts, under, drafts, afresh=afresh, progress=progress)

    def prepare(self, tasks: Sequence[Task], adapters: Iterable[Subject | None]) -> None:
        """Loads the model if it waits, unless all tasks have been answered under all adapters."""
        if not isinstance(self._model, Waiting):
            return
        identity = self._model.identity()
        for files in adapters:
            digest = digest_of(files)
            self._load_for(
                [_Part(task, task.samples, _key(identity, task, digest, False)) for task in tasks]
            )

    def evaluate_together(
        self, asks: Sequence[Ask], *, drafts: Sequence[TaskResult] | None = None
    ) -> tuple[TaskResult, ...]:
        """What `evaluate` says of each, asked in the same batches: every row under its own adapter.

        Where the model or one of the adapters allows no such batches, one after the other.

        Raises:
            InputError: one of the adapters is broken, or for another base; nothing is said of the
                others then.
            OurFailure: one sample alone does not fit into the device's memory.
        """
        digests = [digest_of(ask.adapter) for ask in asks]
        adapters = {digest: ask.adapter for digest, ask in zip(digests, asks, strict=True)}
        for files in adapters.values():
            self._check(files)
        identity = self._model.identity()
        variants = {digest: variant for variant, digest in enumerate(adapters)}
        parts = [
            _Part(
                ask.task,
                selected(ask.task, {ask.task.name: ask.samples}),
                _key(identity, ask.task, digest, afresh=False),
                variants[digest],
            )
            for digest, ask in zip(digests, asks, strict=True)
        ]
        by_row = None
        if len(adapters) > 1 and isinstance(self._model, SideBySide) and self._load_for(parts):
            by_row = self._model.by_row(adapters)
        if by_row is None:
            return tuple(
                result
                for ask in asks
                for result in self.evaluate(
                    [ask.task], ask.adapter, drafts=drafts, samples={ask.task.name: ask.samples}
                )
            )
        with self._timed():
            return self._answer(parts, lambda: by_row, drafts)

    def _check(self, files: Subject | None) -> None:
        for part in parts_of(files):
            check_base(part, self._model.name)

    def _load_for(self, asked: Sequence[_Part]) -> bool:
        """Has the model loaded if something is asked of it, and says whether something is."""
        lacks = any(
            not {sample.id for sample in part.samples}
            <= (self._cache.holds(part.key) if self._cache else frozenset())
            for part in asked
        )
        if lacks and isinstance(self._model, Waiting):
            self._model.load()
        return lacks

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - started

    def _answer(
        self,
        asked: Sequence[_Part],
        under: Callable[[], AbstractContextManager[None]],
        drafts: Sequence[TaskResult] | None,
        *,
        afresh: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskResult, ...]:
        scores = [self._stored(part.task, part.key) for part in asked]
        waiting = [
            (index, sample)
            for index, part in enumerate(asked)
            for sample in part.samples
            if sample.id not in scores[index]
        ]
        if afresh:
            # Requests of equal length keep their order when they are batched.
            waiting.reverse()
        total = sum(len(part.samples) for part in asked)
        done = total - len(waiting)
        self.asked += total
        self.cached += done
        if progress:
            progress(done, total)
        texts = {(r.task, s.sample_id): s.output for r in drafts or () for s in r.samples}
        questions = [
            Question(
                asked[index].task,
                sample,
                self._draft(asked[index].task, sample, texts),
                asked[index].variant,
            )
            for index, sample in waiting
        ]
        with ExitStack() as stack:
            task_scorers = [stack.enter_context(scorer_of(part.task)) for part in asked]
            if questions:
                stack.enter_context(under())
            unsaved = stack.enter_context(Unsaved(self._cache))
            for at, answer in self._model.answers(questions):
                index, sample = waiting[at]
                task = asked[index].task
                one = scored(task_scorers[index], sample, answer)
                scores[index][sample.id] = one.score
                self._written[task.digest, sample.id] = (one.score.output, one.token_ids)
                unsaved.add(asked[index].key, one)
                done += 1
                if progress:
                    progress(done, total)
        return tuple(
            part.task.result(found[sample.id] for sample in part.samples)
            for part, found in zip(asked, scores, strict=True)
        )

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """As `Model.shares`."""
        with self._timed():
            return self._model.shares(composite, answered)

    def _stored(self, task: Task, key: CacheKey) -> dict[str, SampleScore]:
        """What the cache knows of one task, by sample id."""
        stored = self._cache.load(key) if self._cache else {}
        for sample, one in stored.items():
            self._written[task.digest, sample] = (one.score.output, one.token_ids)
        return {sample: one.score for sample, one in stored.items()}

    def _draft(
        self, task: Task, sample: Sample, texts: dict[tuple[str, str], str]
    ) -> Callable[[], Ids] | None:
        """Another adapter's answer as tokens: as it wrote them, where we saw it write."""
        text = texts.get((task.name, sample.id))
        if text is None:
            return None
        wrote, ids = self._written.get((task.digest, sample.id), (None, ()))
        return (lambda: ids) if wrote == text else partial(self._model.tokens, text)


def _key(identity: Identity, task: Task, adapter: str, afresh: bool) -> CacheKey:
    # Only where it says something, so that the keys of all other results stay what they are.
    marked: dict[str, JsonValue] = {"afresh": True} if afresh else {}
    if task.generation.temperature > 0:
        marked["drawn"] = task.name  # by which `noise_key` seeds the draws, and no digest knows
    return CacheKey(
        base=identity.base,
        adapter=adapter,
        task=task.digest,
        settings=json.dumps({**identity.settings, **marked}, sort_keys=True),
        versions=json.dumps(dict(identity.versions), sort_keys=True),
        algorithm=ALGORITHM,
    )
