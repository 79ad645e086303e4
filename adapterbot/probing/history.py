"""Finding where a training run broke: a regression that was measured, taken through its history.

The gate and the bisect that a person starts by hand share everything here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from adapterbot import bisect, delta, verdict
from adapterbot.bisect import (
    DEFAULT_LIMITS,
    Archive,
    Checkpoint,
    Entry,
    Journal,
    Limits,
    Search,
    Setting,
)
from adapterbot.config import AdapterConfig, ArchiveData
from adapterbot.errors import InputError
from adapterbot.eval.suite import Suite, Task
from adapterbot.probing.between import Asked, what_changed
from adapterbot.probing.blame import Blame
from adapterbot.probing.chunks import Chunks, Series
from adapterbot.probing.evaluator import (
    Evaluator,
    ParallelEvaluator,
    corpora,
    evaluate_both,
)
from adapterbot.probing.regression import Regression, shown
from adapterbot.records import AdapterRef, AdapterReport, BisectResult, BisectVerdict, Outcome
from adapterbot.stages import Stages
from adapterbot.tree import check_text
from adapterbot.weights.peft_dir import adapter_digest, read_adapter_dir


def find_break(
    archive: Archive,
    checkpoints: Sequence[Checkpoint],
    regression: Regression,
    evaluator: Evaluator,
    *,
    known_bad: str | None = None,
    ends_known: bool = False,
    confidence: float = 0.95,
    limits: Limits = DEFAULT_LIMITS,
    journal_at: Path | None = None,
    resume: bool = False,
    config: str,
    data: ArchiveData | None = None,
    blame: Blame | None = None,
    say: Callable[[str], None],
) -> BisectResult:
    """Search the checkpoints of a run for the first that shows the regression.

    What was measured at the bad end is evidence from the start; the good end is what every probe
    is paired with.

    Args:
        limits: several jobs go to the evaluator's machines, where it has more than one, or into
            the batches of the one that it has.
        known_bad: digest of the bad end; when the last checkpoint is that very one, it is bad.
        ends_known: the first checkpoint is the good end, and the last the bad one.
        confidence: probability of one change point that is enough.
        journal_at: where finished probes are kept; with `resume` those in it are not repeated.
        config: the training config, which names the data at each commit of a Git history.
        data: which rows each checkpoint was trained on, to tell what changed.
        blame: ranks the rows that came in between.

    Raises:
        InputError: a checkpoint's name is none that a report can hold.
    """
    for checkpoint in checkpoints:
        check_text(checkpoint.path)
    n, last = len(checkpoints), len(checkpoints) - 1
    bad_is_last = ends_known or (
        known_bad is not None and _digest(archive, checkpoints[last]) == known_bad
    )
    good = {result.task: result for result in regression.good}
    bad = {result.task: result for result in regression.bad}
    tasks = {task.name: task for task in regression.tasks}
    series = [
        Series.of(shown(broken), tasks[broken[0]], broken[1], good[broken[0]])
        for broken in regression.apart()
    ]
    setting = Setting(
        by=" ".join(sorted({one.task.digest for one in series})),
        kinds=tuple(one.kind(bad[one.task.name]) for one in series),
        first_good=ends_known,
        last_bad=bad_is_last,
        confidence=confidence,
    )
    search = Search(checkpoints, setting, regression.metrics)
    journal = (
        Journal(journal_at, bisect.heading(checkpoints, setting), resume=resume)
        if journal_at
        else None
    )
    before = list(journal.entries) if journal else []
    known = {entry.kind for entry in before if entry.given}
    for kind, one in enumerate(series):
        if kind in known:
            continue
        given = Entry(
            index=last if bad_is_last else n,
            kind=kind,
            outcome=tuple(one.harms(bad[one.task.name]).tolist()),
            detail=f"{one.shown}: the bad end, measured before",
            given=True,
        )
        if journal:
            journal.add(given)
        else:
            search.take(given)
    probe = Chunks(archive, checkpoints, series, regression.good, evaluator, before)
    parallel = isinstance(evaluator, ParallelEvaluator) and evaluator.parallel
    found = bisect.run(
        search,
        probe,
        together=None if parallel else probe.together,
        limits=limits,
        journal=journal,
        progress=say,
    )
    answers = probe.answers | ({last: list(regression.bad)} if bad_is_last else {})
    asked = Asked(regression.good, answers)
    between = what_changed(
        archive, checkpoints, found, config=config, data=data, asked=asked, blame=blame
    )
    return found.model_copy(update={"between": between})


def _digest(archive: Archive, checkpoint: Checkpoint) -> str | None:
    try:
        with archive.opened(checkpoint) as path:
            return adapter_digest(path)
    except InputError:
        return None  # its probe will say why


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


def search(
    archive: Archive,
    adapter: AdapterConfig,
    suite: Suite,
    checkpoints: Sequence[Checkpoint],
    evaluator: Evaluator,
    stages: Stages,
    *,
    metric: str | None,
    base_model: str,
    confidence: float = 0.95,
    limits: Limits = DEFAULT_LIMITS,
    journal_at: Path | None = None,
    resume: bool = False,
    blame: Blame | None = None,
) -> AdapterReport:
    """Compare the two ends of a history, and find where what regressed between them broke.

    Args:
        metric: search for this task's break; None searches for whatever regressed.
        blame: ranks the rows that came in where it broke.

    Raises:
        InputError: the suite has no such metric, or an end of the history cannot be evaluated.
    """
    tasks = tasks_of(suite, metric)
    last = len(checkpoints) - 1
    with ExitStack() as stack:
        first_end, last_end = (
            read_adapter_dir(stack.enter_context(archive.opened(end)), shown=end.path)
            for end in (checkpoints[0], checkpoints[last])
        )
        digests = [adapter_digest(end.path) for end in (first_end, last_end)]
        with stages("evaluate") as progress:
            good, bad = evaluate_both(evaluator, tasks, first_end, last_end, progress)
    policies = verdict.policies(suite.tasks, adapter.policy.metrics)
    if metric:  # asked for by name, so it decides, whatever the suite says
        policies[metric] = replace(policies[metric], gated=True)
    metrics, outcome = verdict.judge(
        delta.compare_all(good, bad, corpora=corpora(tasks)), policies, alpha=adapter.policy.alpha
    )
    regression = Regression.of(tasks, metrics, good, bad)
    if regression.harms:
        with stages("bisect"):
            found = find_break(
                archive,
                checkpoints,
                regression,
                evaluator,
                ends_known=True,
                confidence=confidence,
                limits=limits,
                journal_at=journal_at,
                resume=resume,
                config=adapter.config,
                data=adapter.archive_data,
                blame=blame,
                say=stages.listener.said,
            )
    else:
        judged = outcome.outcome is not Outcome.NOT_JUDGED
        found = BisectResult(
            verdict=BisectVerdict.ALL_OK if judged else BisectVerdict.NOT_RUN,
            metrics=tuple(task.name for task in tasks),
            checkpoints=len(checkpoints),
            note="no regression between the first and the last checkpoint is certain"
            if judged
            else "; ".join(outcome.reasons)[:1000],
        )
    return AdapterReport(
        key=adapter.key,
        adapter=adapter.path,
        base_model=base_model,
        baseline=_end(checkpoints[0], digests[0]),
        candidate=_end(checkpoints[last], digests[1]),
        verdict=outcome,
        metrics=metrics,
        bisect=found,
        eval=evaluator.stats(),
        stages=tuple(stages.finished),
    )


def _end(checkpoint: Checkpoint, digest: str) -> AdapterRef:
    return AdapterRef(label=checkpoint.label, path=checkpoint.path, digest=digest)
