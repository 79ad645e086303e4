"""Finding where a training run broke: a regression that was measured, taken through its history.

The gate and the bisect that a person starts by hand share everything here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapterbot import bisect, delta, verdict
from adapterbot.bisect import Answer, Checkpoint
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.eval.suite import Suite, Task
from adapterbot.records import (
    AdapterRef,
    AdapterReport,
    BisectResult,
    BisectVerdict,
    Direction,
    EvalStats,
    MetricVerdict,
    Standing,
    TaskResult,
)
from adapterbot.stages import Stages
from adapterbot.tree import Tree
from adapterbot.weights.peft_dir import AdapterFiles, adapter_digest, read_adapter_dir


class Evaluator(Protocol):
    """Scores adapters under one loaded base model."""

    def evaluate(
        self,
        tasks: Sequence[Task],
        adapter: AdapterFiles | None,
        *,
        drafts: Sequence[TaskResult] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[TaskResult, ...]:
        """Every task's samples, scored; `drafts` are another adapter's results on them."""

    def stats(self) -> EvalStats:
        """What it has done since it was made."""


@dataclass(frozen=True)
class Regression:
    """What broke: the regressed tasks with the harm that the bad end shows on each.

    A checkpoint counts as bad when it lies nearer to the bad end than to the good one on any of
    them; scores are not turned into pass or fail before that.
    """

    tasks: tuple[Task, ...]
    harms: dict[str, float]
    good: tuple[TaskResult, ...]
    bad: tuple[TaskResult, ...]

    @classmethod
    def of(
        cls,
        tasks: Sequence[Task],
        metrics: Sequence[MetricVerdict],
        good: Sequence[TaskResult],
        bad: Sequence[TaskResult],
    ) -> Regression:
        """The regressed metrics of a verdict."""
        harms = {
            m.delta.task: m.delta.harm
            for m in metrics
            if m.standing is Standing.REGRESSED and m.delta.harm is not None
        }
        return cls(
            tasks=tuple(task for task in tasks if task.name in harms),
            harms=harms,
            good=tuple(result for result in good if result.task in harms),
            bad=tuple(result for result in bad if result.task in harms),
        )


def find_break(
    tree: Tree,
    checkpoints: Sequence[Checkpoint],
    regression: Regression,
    evaluator: Evaluator,
    *,
    known_bad: str | None = None,
    known: dict[int, tuple[Answer, str]] | None = None,
    say: Callable[[str], None],
) -> BisectResult:
    """Search the checkpoints of a run for the first that shows the regression.

    Args:
        known_bad: digest of an adapter that was measured as bad; a checkpoint with the same
            content is not evaluated again.
        known: answers by index that were measured already.
    """

    def judge(checkpoint: Checkpoint) -> tuple[Answer, str]:
        try:
            files = read_adapter_dir(tree.on_disk(checkpoint.path), shown=checkpoint.path)
            results = evaluator.evaluate(regression.tasks, files, drafts=regression.good)
        except InputError as error:
            return Answer.SKIPPED, error.message
        return nearer_end(regression, results)

    answers = dict(known or {})
    last = len(checkpoints) - 1
    if known_bad and adapter_digest(tree.on_disk(checkpoints[last].path)) == known_bad:
        answers[last] = (Answer.BAD, "the candidate itself, measured by the gate")
    return bisect.run(
        checkpoints, judge, metrics=sorted(regression.harms), known=answers, progress=say
    )


def nearer_end(regression: Regression, results: Sequence[TaskResult]) -> tuple[Answer, str]:
    """Good or bad, with the mean score on each regressed task.

    One mean per task is all that a probe needs, so nothing is resampled here.
    """
    good = {result.task: result for result in regression.good}
    shown: list[str] = []
    worst = Answer.GOOD
    for result in results:
        before = {sample.sample_id: sample.score for sample in good[result.task].samples}
        pairs = [
            (score, sample.score)
            for sample in result.samples
            if sample.score is not None and (score := before.get(sample.sample_id)) is not None
        ]
        if not pairs:
            return Answer.SKIPPED, f"{result.task}: no sample could be scored"
        change = sum(after - score for score, after in pairs) / len(pairs)
        harm = -change if result.direction is Direction.HIGHER else change
        shown.append(f"{result.task} {sum(after for _, after in pairs) / len(pairs):.3g}")
        if harm > regression.harms[result.task] / 2:
            worst = Answer.BAD
    return worst, ", ".join(shown)


def search(
    tree: Tree,
    adapter: AdapterConfig,
    suite: Suite,
    checkpoints: Sequence[Checkpoint],
    evaluator: Evaluator,
    stages: Stages,
    *,
    metric: str | None,
    base_model: str,
) -> AdapterReport:
    """Compare the two ends of a history, and find where what regressed between them broke.

    Args:
        metric: search for this task's break; None searches for whatever regressed.

    Raises:
        InputError: the suite has no such metric, or an end of the history cannot be evaluated.
    """
    tasks = [task for task in suite.tasks if metric in (None, task.name)]
    if not tasks:
        raise InputError(
            f"the suite has no task {metric!r}",
            file=suite.path,
            field="metric",
            fix=f"name one of {', '.join(task.name for task in suite.tasks)}",
        )
    last = len(checkpoints) - 1
    first_end, last_end = (
        read_adapter_dir(tree.on_disk(checkpoints[i].path), shown=checkpoints[i].path)
        for i in (0, last)
    )
    with stages("evaluate") as progress:
        total = 2 * sum(len(task.samples) for task in tasks)
        good = evaluator.evaluate(tasks, first_end, progress=lambda done, _: progress(done, total))
        bad = evaluator.evaluate(
            tasks,
            last_end,
            drafts=good,
            progress=lambda done, _: progress(total // 2 + done, total),
        )
    policies = verdict.policies(tasks, adapter.policy.metrics)
    metrics, outcome = verdict.judge(
        delta.compare_all(good, bad), policies, alpha=adapter.policy.alpha
    )
    regression = Regression.of(tasks, metrics, good, bad)
    if regression.harms:
        with stages("bisect"):
            found = find_break(
                tree,
                checkpoints,
                regression,
                evaluator,
                known={
                    0: (Answer.GOOD, "the good end"),
                    last: (Answer.BAD, "the bad end"),
                },
                say=stages.listener.said,
            )
    else:
        found = BisectResult(
            verdict=BisectVerdict.ALL_OK,
            metrics=tuple(task.name for task in tasks),
            checkpoints=len(checkpoints),
            note="nothing regressed between the first and the last checkpoint",
        )
    return AdapterReport(
        key=adapter.key,
        adapter=adapter.path,
        base_model=base_model,
        baseline=_end(checkpoints[0], tree),
        candidate=_end(checkpoints[last], tree),
        verdict=outcome,
        metrics=metrics,
        bisect=found,
        eval=evaluator.stats(),
        stages=tuple(stages.finished),
    )


def _end(checkpoint: Checkpoint, tree: Tree) -> AdapterRef:
    return AdapterRef(
        label=checkpoint.label,
        path=checkpoint.path,
        digest=adapter_digest(tree.on_disk(checkpoint.path)),
    )
