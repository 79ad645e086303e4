"""The evaluation of both adapters, which may stop as soon as every gated metric is clear.

With `--sequential` both answer one chunk of samples after another; a metric whose anytime-valid
test has settled (`sequential`) costs nothing more. Three kinds of metric are always measured in
full, because nothing valid can be said of a part of them: corpus metrics (BLEU, perplexity), tasks
with a threshold for the mean, and everything where the suite gates no metric at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from adapterbot import delta
from adapterbot.eval.questions import Subject
from adapterbot.eval.suite import Task
from adapterbot.paired import Metric, Paired
from adapterbot.probing.evaluator import Evaluator, corpora, evaluate_both
from adapterbot.records import EarlyStop, SampleScore, TaskResult
from adapterbot.records.deltas import FEWEST, metric_name
from adapterbot.sequential import Sequential
from adapterbot.verdict import MetricPolicy

LOOKS = 20
"""At most so many chunks: what `tests/simulation` holds the error rate against."""

Chunk = tuple[str, ...]
"""Sample ids of one task that are asked together."""


Subjects = tuple[Subject | None, Subject | None]
"""Baseline and candidate; None is the bare base."""


@dataclass(frozen=True)
class Measured:
    """What both adapters answered, and what it comes to.

    `tasks` hold the samples that were asked, and no others; `compare` makes of them what
    `verdict.judge` judges; `stop` is None where everything was asked without looking.
    """

    tasks: tuple[Task, ...]
    before: tuple[TaskResult, ...]
    after: tuple[TaskResult, ...]
    compare: Callable[[], tuple[Paired, ...]]
    stop: EarlyStop | None = None


def measure(
    evaluator: Evaluator,
    tasks: Sequence[Task],
    subjects: Subjects,
    rules: Mapping[str, MetricPolicy],
    *,
    alpha: float,
    sequential: bool,
    progress: Callable[[int, int], None],
) -> Measured:
    """Two adapters on the same tasks, in full or chunk by chunk until everything is clear.

    Args:
        rules: as for `verdict.judge`, from `verdict.policies`.
        alpha: the chance of calling anything regressed if nothing changed, however often we look.
        progress: called with (answers so far, answers if nothing settles early).
    """
    whole = corpora(tasks)
    if not sequential:
        before, after = evaluate_both(evaluator, tasks, *subjects, progress)
        return Measured(
            tuple(tasks), before, after, partial(delta.compare_all, before, after, corpora=whole)
        )
    gated = sum(policy.gated for policy in rules.values())
    runs = [
        _Run(task, rules, alpha=alpha, family=gated)
        if gated and task.name not in whole and task.threshold is None
        else _Whole(task, whole.get(task.name))
        for task in tasks
    ]
    planned = sum(len(task.samples) for task in tasks)
    done = 0

    def report(so_far: int, _: int) -> None:
        progress(done + so_far, 2 * planned)

    for look in range(LOOKS):
        open_ = [run for run in runs if look < len(run.chunks) and not run.settled]
        # What is only shown goes on as long as anything that decides is open.
        if look and not any(run.decides for run in open_):
            break
        chosen = {run.task.name: run.chunks[look] for run in open_}
        now = [run.task for run in open_]
        left = evaluator.evaluate(now, subjects[0], samples=chosen, progress=report)
        done += sum(map(len, chosen.values()))
        right = evaluator.evaluate(now, subjects[1], drafts=left, samples=chosen, progress=report)
        done += sum(map(len, chosen.values()))
        for run, *answered in zip(open_, left, right, strict=True):
            run.take(*answered)
    return Measured(
        tasks=tuple(run.asked() for run in runs),
        before=tuple(run.result(0) for run in runs),
        after=tuple(run.result(1) for run in runs),
        compare=lambda: tuple(found for run in runs for found in run.deltas()),
        stop=EarlyStop(used=done // 2, planned=planned),
    )


class _Whole:
    """A task that is asked everything at once."""

    def __init__(self, task: Task, corpus: delta.Corpus | None = None) -> None:
        self.task = task
        self._corpora = {task.name: corpus} if corpus else {}
        self.chunks: list[Chunk] = [tuple(sample.id for sample in task.samples)]
        self.settled = False
        self.decides = task.gated
        self._seen: tuple[dict[str, SampleScore], dict[str, SampleScore]] = ({}, {})

    def take(self, before: TaskResult, after: TaskResult) -> None:
        """The scores of one chunk."""
        for seen, result in zip(self._seen, (before, after), strict=True):
            seen.update({sample.sample_id: sample for sample in result.samples})

    def asked(self) -> Task:
        """The task with the samples that were asked, in suite order."""
        seen = self._seen[0]
        kept = tuple(sample for sample in self.task.samples if sample.id in seen)
        return self.task.model_copy(update={"samples": kept})

    def result(self, side: int) -> TaskResult:
        """Everything asked so far under the baseline (0) or the candidate (1), in suite order."""
        seen = self._seen[side]
        return self.task.result(seen[sample.id] for sample in self.asked().samples)

    def deltas(self) -> Sequence[Paired]:
        """Its metrics, overall and by slice."""
        return delta.compare_all([self.result(0)], [self.result(1)], corpora=self._corpora)


class _Run(_Whole):
    """A task that is asked chunk by chunk, and the tests of its metrics that look at each."""

    def __init__(
        self, task: Task, rules: Mapping[str, MetricPolicy], *, alpha: float, family: int
    ) -> None:
        super().__init__(task)
        self.chunks = _chunks(task)
        slices = sorted({sample.slice for sample in task.samples if sample.slice is not None})
        self._tests: dict[str | None, Sequential] = {}
        self._open: set[str | None] = set()
        self._reached: set[str | None] = {None}
        for name in (None, *slices):
            own = rules.get(metric_name(task.name, name))
            policy = own or replace(rules[task.name], gated=False)
            rows = Counter(s.cluster for s in task.samples if s.cluster and name in (None, s.slice))
            # Bonferroni's level, so that Holm's steps cannot ask for more later.
            self._tests[name] = Sequential(
                Metric.of(task.result(()), name),
                margin=policy.margin,
                alpha=alpha,
                alpha_worse=alpha / family,
                least_effect=policy.least_effect,
                largest_cluster=max(rows.values(), default=1),
            )
            if policy.gated:
                self._open.add(name)
        self.decides = bool(self._open)

    def take(self, before: TaskResult, after: TaskResult) -> None:
        super().take(before, after)
        right = {sample.sample_id: sample for sample in after.samples}
        for name, test in self._tests.items():
            rows = [s for s in before.samples if name is None or s.slice == name]
            if rows:
                self._reached.add(name)
            found = test.update(
                np.array([delta.score_of(sample) for sample in rows]),
                np.array([delta.score_of(right[sample.sample_id]) for sample in rows]),
                clusters=[delta.cluster_of(sample) for sample in rows],
            )
            if found is not None:
                self._open.discard(name)
        self.settled = self.decides and not self._open

    def deltas(self) -> Sequence[Paired]:
        used, planned = len(self._seen[0]), len(self.task.samples)
        found = []
        for name, test in self._tests.items():
            if name not in self._reached:
                continue
            paired = test.paired()
            if used < planned:
                words = f"stopped after {used} of {planned} samples"
                note = f"{paired.delta.note}; {words}" if paired.delta.note else words
                paired = replace(paired, delta=paired.delta.model_copy(update={"note": note}))
            found.append(paired)
        return found


def _chunks(task: Task) -> list[Chunk]:
    """The samples in an order that has nothing to do with the file's, whole clusters together.

    A file that is sorted by topic would otherwise be judged by its first topic. The order is one of
    content, so it is always the same.
    """
    units: dict[tuple[str, str], list[str]] = {}
    for sample in task.samples:
        unit = ("cluster", sample.cluster) if sample.cluster else ("sample", sample.id)
        units.setdefault(unit, []).append(sample.id)

    order = sorted(units, key=lambda unit: task.lot(*unit))
    size = max(math.ceil(len(order) / LOOKS), FEWEST)
    return [
        tuple(name for unit in order[start : start + size] for name in units[unit])
        for start in range(0, len(order), size)
    ]
