"""Finding where a training run broke: a regression that was measured, taken through its history.

The gate and the bisect that a person starts by hand share everything here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapterbot import bisect, delta, verdict
from adapterbot.bisect import DEFAULT_LIMITS, Entry, Journal, Limits, Search, Setting
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.eval.suite import Suite, Task
from adapterbot.files.paths import check_text
from adapterbot.probing.between import Asked, what_changed
from adapterbot.probing.blame import Blame
from adapterbot.probing.chunks import Chunks, Series
from adapterbot.probing.evaluator import Evaluator, ParallelEvaluator, corpora, evaluate_both
from adapterbot.probing.regression import Regression
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import (
    AdapterRef,
    AdapterReport,
    BisectResult,
    BisectVerdict,
    Outcome,
    TaskResult,
    Verdict,
)
from adapterbot.records.deltas import metric_name
from adapterbot.stages import Stages
from adapterbot.weights.peft_dir import adapter_digest


@dataclass(frozen=True)
class SearchPlan:
    """How a search is made.

    Attributes:
        confidence: probability of one change point that is enough.
        limits: several jobs go to the evaluator's machines, where it has more than one, or into
            the batches of the one that it has.
        journal: where finished probes are kept; None keeps them nowhere.
        resume: probes that are in the journal already are not repeated.
        blame: ranks the training rows that came in where it broke.
        prior: weights of the n + 1 change points; None prefers none.
    """

    confidence: float = 0.95
    limits: Limits = DEFAULT_LIMITS
    journal: Path | None = None
    resume: bool = False
    blame: Blame | None = None
    prior: tuple[float, ...] | None = None


USUAL = SearchPlan()


def find_break(
    run: TrainingRun,
    regression: Regression,
    evaluator: Evaluator,
    *,
    first_good: bool = False,
    last_bad: bool = False,
    plan: SearchPlan = USUAL,
    say: Callable[[str], None],
) -> BisectResult:
    """Search the checkpoints of a run for the first that shows the regression.

    What was measured at the bad end is evidence from the start; the good end is what every probe
    is paired with.

    Args:
        first_good: the oldest checkpoint is the good end.
        last_bad: the newest is the bad end; else that is an adapter outside the run.

    Raises:
        InputError: a checkpoint's name is none that a report can hold.
    """
    for checkpoint in run.checkpoints:
        check_text(checkpoint.path)
    bad = {result.task: result for result in regression.bad}
    series = _series(regression)
    setting = Setting(
        by=" ".join(sorted({one.task.digest for one in series})),
        kinds=tuple(one.kind(bad[one.task.name]) for one in series),
        first_good=first_good,
        last_bad=last_bad,
        confidence=plan.confidence,
        prior=plan.prior,
    )
    search = Search(run.checkpoints, setting, regression.metrics)
    journal = (
        Journal(plan.journal, bisect.heading(run.checkpoints, setting), resume=plan.resume)
        if plan.journal
        else None
    )
    before = list(journal.entries) if journal else []
    bad_end = run.last if last_bad else len(run.checkpoints)
    for entry in _given(series, bad, bad_end, before):
        if journal:
            journal.add(entry)
        else:
            search.take(entry)
    probe = Chunks(run.archive, run.checkpoints, series, regression.good, evaluator, before)
    parallel = isinstance(evaluator, ParallelEvaluator) and evaluator.parallel
    found = bisect.run(
        search,
        probe,
        together=None if parallel else probe.together,
        limits=plan.limits,
        journal=journal,
        progress=say,
    )
    answers = probe.answers | ({run.last: list(regression.bad)} if last_bad else {})
    between = what_changed(run, found, Asked(regression.good, answers), plan.blame)
    return found.model_copy(update={"between": between})


def _series(regression: Regression) -> list[Series]:
    good = {result.task: result for result in regression.good}
    tasks = {task.name: task for task in regression.tasks}
    return [
        Series.of(metric_name(*broken), tasks[broken[0]], broken[1], good[broken[0]])
        for broken in regression.apart()
    ]


def _given(
    series: Sequence[Series], bad: Mapping[str, TaskResult], index: int, before: Sequence[Entry]
) -> list[Entry]:
    """What was measured at the bad end, as if it had been probed; what a journal has is left out.

    Args:
        index: where the bad end is, the number of checkpoints where it is none of them.
        before: what the journal holds.
    """
    known = {entry.kind for entry in before if entry.given}
    return [
        Entry(
            index=index,
            kind=kind,
            outcome=tuple(one.harms(bad[one.task.name]).tolist()),
            detail=f"{one.shown}: the bad end, measured before",
            given=True,
        )
        for kind, one in enumerate(series)
        if kind not in known
    ]


def tasks_of(suite: Suite, metric: str | None) -> list[Task]:
    """The suite's tasks; the one that was named, where one was.

    Raises:
        InputError: the suite has no such task.
    """
    tasks = [task for task in suite.tasks if metric in (None, task.name)]
    if not tasks:
        raise InputError(
            f"the suite has no task {metric!r}",
            file=suite.path,
            field="metric",
            fix=f"name one of {', '.join(task.name for task in suite.tasks)}",
        )
    return tasks


@dataclass(frozen=True)
class _Ends:
    """The oldest and the newest checkpoint of a run: which they are, and what they answered."""

    baseline: AdapterRef
    candidate: AdapterRef
    good: tuple[TaskResult, ...]
    bad: tuple[TaskResult, ...]


def search(
    run: TrainingRun,
    adapter: AdapterConfig,
    suite: Suite,
    evaluator: Evaluator,
    stages: Stages,
    *,
    metric: str | None,
    base_model: str,
    plan: SearchPlan = USUAL,
) -> AdapterReport:
    """Compare the two ends of a run, and find where what regressed between them broke.

    Args:
        metric: search for this task's break; None searches for whatever regressed.

    Raises:
        InputError: the suite has no such metric, or an end of the run cannot be evaluated.
    """
    tasks = tasks_of(suite, metric)
    ends = _evaluated(run, evaluator, tasks, stages)
    policies = verdict.policies(suite.tasks, adapter.policy.metrics)
    if metric:  # asked for by name, so it decides, whatever the suite says
        policies[metric] = replace(policies[metric], gated=True)
    metrics, outcome = verdict.judge(
        delta.compare_all(ends.good, ends.bad, corpora=corpora(tasks)),
        policies,
        alpha=adapter.policy.alpha,
    )
    regression = Regression.of(tasks, metrics, ends.good, ends.bad)
    if regression.harms:
        with stages("bisect"):
            found = find_break(
                run,
                regression,
                evaluator,
                first_good=True,
                last_bad=True,
                plan=plan,
                say=stages.listener.said,
            )
    else:
        found = _nothing_broke(run, tasks, outcome)
    return AdapterReport(
        key=adapter.key,
        adapter=adapter.path,
        base_model=base_model,
        baseline=ends.baseline,
        candidate=ends.candidate,
        verdict=outcome,
        metrics=metrics,
        bisect=found,
        eval=evaluator.stats(),
        stages=tuple(stages.finished),
    )


def _evaluated(
    run: TrainingRun, evaluator: Evaluator, tasks: Sequence[Task], stages: Stages
) -> _Ends:
    ends = (run.checkpoints[0], run.checkpoints[run.last])
    with run.adapters(*ends) as (first, last):
        digests = (adapter_digest(first.path), adapter_digest(last.path))
        with stages("evaluate") as progress:
            good, bad = evaluate_both(evaluator, tasks, first, last, progress)
    baseline, candidate = (
        AdapterRef(label=end.label, path=end.path, digest=digest)
        for end, digest in zip(ends, digests, strict=True)
    )
    return _Ends(baseline, candidate, good, bad)


def _nothing_broke(run: TrainingRun, tasks: Sequence[Task], outcome: Verdict) -> BisectResult:
    judged = outcome.outcome is not Outcome.NOT_JUDGED
    return BisectResult(
        verdict=BisectVerdict.ALL_OK if judged else BisectVerdict.NOT_RUN,
        metrics=tuple(task.name for task in tasks),
        checkpoints=len(run.checkpoints),
        note="no regression between the first and the last checkpoint is certain"
        if judged
        else "; ".join(outcome.reasons)[:1000],
    )
