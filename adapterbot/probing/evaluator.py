"""What probes and gates ask of an engine, and the two adapters that they compare with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from adapterbot import delta
from adapterbot.eval.answers import Sample
from adapterbot.eval.evaluation import Ask
from adapterbot.eval.questions import Composite, Subject
from adapterbot.eval.scorers.base import CorpusScorer
from adapterbot.eval.scoring import scorer_of
from adapterbot.eval.suite import Selection, Task
from adapterbot.records import EvalStats, SavedTask, TaskResult


class Evaluator(Protocol):
    """Scores adapters under one base model."""

    def prepare(self, tasks: Sequence[Task], adapters: Iterable[Subject | None]) -> None:
        """Loads the base, unless all tasks have been answered under all adapters before. It need
        not be called: what is asked and was not answered loads the base as well."""

    def evaluate(
        self,
        tasks: Sequence[Task],
        adapter: Subject | None,
        *,
        drafts: Sequence[TaskResult] | None = None,
        samples: Selection | None = None,
        afresh: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskResult, ...]:
        """Every task's samples, or those selected, scored; `drafts` are another adapter's results
        on them. `afresh` asks in batches of another composition, whatever was answered before."""

    def evaluate_together(
        self, asks: Sequence[Ask], *, drafts: Sequence[TaskResult] | None = None
    ) -> tuple[TaskResult, ...]:
        """What `evaluate` says of each, in the same batches where rows may differ in adapters."""

    def shares(
        self, composite: Composite, answered: Sequence[tuple[Sample, str]]
    ) -> tuple[float, ...]:
        """How much of some answers each part of a composite wrote; empty where nobody can look."""

    def stats(self) -> EvalStats:
        """What it has done since it was made."""

    def close(self) -> None:
        """Lets go of the model, and of the machines that were taken for it."""


@runtime_checkable
class ParallelEvaluator(Evaluator, Protocol):
    """One that may have room for several adapters at the same time."""

    @property
    def parallel(self) -> bool:
        """Whether it has."""

    def beside(self) -> Evaluator:
        """Another one on the same machines, for the thread that asks."""


def evaluate_both(
    evaluator: Evaluator,
    tasks: Sequence[Task],
    baseline: Subject | None,
    candidate: Subject | None,
    progress: Callable[[int, int], None],
) -> tuple[tuple[TaskResult, ...], tuple[TaskResult, ...]]:
    """Two adapters on the same tasks, the first one's answers as drafts for the second."""
    total = 2 * sum(len(task.samples) for task in tasks)
    before = evaluator.evaluate(tasks, baseline, progress=lambda done, _: progress(done, total))
    after = evaluator.evaluate(
        tasks,
        candidate,
        drafts=before,
        progress=lambda done, _: progress(total // 2 + done, total),
    )
    return before, after


def corpora(tasks: Sequence[SavedTask]) -> dict[str, delta.Corpus]:
    """What `delta` needs to know of tasks whose metric is one of the whole corpus."""
    found: dict[str, delta.Corpus] = {}
    for task in tasks:
        with scorer_of(task) as scorer:
            if isinstance(scorer, CorpusScorer):
                found[task.name] = delta.Corpus(scorer.aggregate, lambda sample: sample.stats)
    return found
