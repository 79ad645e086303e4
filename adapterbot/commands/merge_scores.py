"""How good candidates of a merge are: a suite, asked of a model that blends adapters. (torch)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterbot.errors import AdapterbotError, InputError
from adapterbot.eval.blends import BlendedModel
from adapterbot.eval.evaluation import Evaluation
from adapterbot.eval.suite import Task
from adapterbot.merge.race import Failed
from adapterbot.merge.space import FloatArray, Weights
from adapterbot.records import SampleScore, TaskResult, Unit

# What a margin weighs against a share of right answers: as much as so many of them.
_MARGIN = 0.05


class SuiteScores:
    """Candidates scored by a model that blends adapters."""

    def __init__(self, model: BlendedModel, tasks: Sequence[Task]) -> None:
        self.base_digest = model.base.digest
        self._model = model
        self._evaluation = Evaluation(model)
        self._tasks = tasks
        self._scale = [_scale(task) for task in tasks]
        self._place = [
            (index, sample.id) for index, task in enumerate(tasks) for sample in task.samples
        ]
        self._answers: list[dict[str, SampleScore]] = [{} for _ in tasks]

    def scores(
        self, candidates: Sequence[Weights], items: Sequence[int]
    ) -> list[FloatArray | Failed]:
        """As `merge.race.Evaluator`: all candidates in the same batches where the model can do
        that, and what was answered last as drafts."""
        if len(candidates) > 1 and self._model.side_by_side:
            try:
                return self._asked(candidates, items)
            except (AdapterbotError, RuntimeError):
                pass  # of one of them: asked one by one, it fails alone
        found: list[FloatArray | Failed] = []
        for weights in candidates:
            try:
                found += self._asked([weights], items)
            except (AdapterbotError, RuntimeError) as error:
                found.append(Failed(str(error) or type(error).__name__))
        return found

    def close(self) -> None:
        """Takes the adapters off the base."""
        self._evaluation.close()

    def _asked(
        self, candidates: Sequence[Weights], items: Sequence[int]
    ) -> list[FloatArray | Failed]:
        asked: dict[str, list[str]] = {}
        for item in items:
            index, sample = self._place[item]
            asked.setdefault(self._tasks[index].name, []).append(sample)
        self._model.blend(*(weights.tolist() for weights in candidates))
        count = len(self._tasks)
        results = self._evaluation.evaluate(
            [*self._tasks] * len(candidates),
            None,
            drafts=self._drafts(),
            samples=asked,
            variants=[variant for variant in range(len(candidates)) for _ in range(count)],
        )
        return [
            self._scored(results[start : start + count], items)
            for start in range(0, len(results), count)
        ]

    def _scored(self, results: Sequence[TaskResult], items: Sequence[int]) -> FloatArray | Failed:
        found: dict[tuple[int, str], float] = {}
        for index, result in enumerate(results):
            for sample in result.samples:
                if sample.score is None:
                    return Failed(f"{result.task}: {sample.sample_id}: {sample.missing}")
                found[index, sample.sample_id] = self._scale[index] * sample.score
            self._answers[index].update((sample.sample_id, sample) for sample in result.samples)
        return np.array([found[self._place[item]] for item in items])

    def _drafts(self) -> list[TaskResult]:
        return [
            task.result(answers.values())
            for task, answers in zip(self._tasks, self._answers, strict=True)
        ]


def _scale(task: Task) -> float:
    """What turns a score into one where higher is better and tasks can be added."""
    sign = -task.direction.worse
    if task.unit is Unit.FRACTION:
        return sign
    if task.margin <= 0:
        raise InputError(
            "has a unit of its own and no margin, so it cannot be added to the others",
            field=task.name,
            fix="give it a margin, or set `gated: false`",
        )
    return sign * _MARGIN / task.margin
