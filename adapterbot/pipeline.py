"""The gate, top to bottom:

    lock check ─► eval (baseline ‖ candidate) ─► deltas ─► verdict ─► bisect when it regressed

One direction, no back and forth. What it needs of the outside (an evaluator for a base model,
clocks, listeners) is handed in; what it decides with comes from the base ref only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterbot import TOOL, attest, lock, verdict
from adapterbot.changes.disguises import refuse_disguised
from adapterbot.changes.renames import former
from adapterbot.changes.selection import removed
from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig, OnDrift
from adapterbot.differing import differing_samples
from adapterbot.errors import AdapterbotError
from adapterbot.eval.saved import saved_task
from adapterbot.eval.suite import Suite
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree
from adapterbot.judging import early, noise, routing, staleness, subjects
from adapterbot.judging.case import Case, read_case
from adapterbot.judging.subjects import Side
from adapterbot.overall import weighted_change
from adapterbot.probing.evaluator import Evaluator
from adapterbot.probing.regression import Regression
from adapterbot.records import (
    AdapterReport,
    BisectResult,
    BisectVerdict,
    LockResult,
    Report,
    SavedResults,
    Source,
    Standing,
    TaskResult,
    TaskRouting,
)
from adapterbot.stages import Listener, Stages
from adapterbot.unjudged import not_judged, taken_away

MAX_SHOWN_SAMPLES = 24


EvaluatorFor = Callable[[str | Path], Evaluator]
"""Makes the evaluator of one base model: a directory, or a model id of the Hub."""


@dataclass
class Services:
    """The outside world of the gate.

    Attributes:
        engine: imports what evaluating takes (seconds, so it is called late and timed by itself).
        listener: is told how far we are.
        cache: folder for checkpoints that are kept elsewhere.
        suite_tree: the files among which a suite that was named by hand lies.
        suites: those that were read, by path: several adapters share one.
        keep: is handed an adapter's key, a side, and every sample's result of it.
        on_adapter: is told the key of every adapter whose turn it is.
    """

    engine: Callable[[], EvaluatorFor]
    listener: Listener
    cache: Path
    suite_tree: Tree | None = None
    suites: dict[str, Suite] = field(default_factory=dict)
    keep: Callable[[str, str, SavedResults, Sequence[TaskResult]], None] = field(
        default=lambda *_: None
    )
    on_adapter: Callable[[str], None] = field(default=lambda _: None)
    _evaluators: dict[str, Evaluator] = field(default_factory=dict)

    def evaluator(self, base: str | Path, make: EvaluatorFor) -> Evaluator:
        """The evaluator of a base model, made once: several adapters share one load."""
        if str(base) not in self._evaluators:
            self._evaluators[str(base)] = make(base)
        return self._evaluators[str(base)]

    def close(self) -> None:
        """Lets go of every evaluator."""
        while self._evaluators:
            self._evaluators.popitem()[1].close()


# ---------------------------------------------------------------- the gate


def gate(
    where: Sides,
    adapters: Sequence[AdapterConfig],
    services: Services,
    source: Source,
    *,
    partial: bool = False,
) -> Report:
    """Judge every adapter; one that cannot be judged is reported, and the others go on."""
    return Report(
        tool=TOOL,
        source=source,
        partial=partial,
        adapters=tuple(judge_or_explain(where, adapter, services) for adapter in adapters),
    )


def judge_or_explain(where: Sides, adapter: AdapterConfig, services: Services) -> AdapterReport:
    """`judge_adapter`, with its errors turned into a section that says so."""
    services.on_adapter(adapter.key)
    try:
        if removed(where, adapter):
            return taken_away(adapter.key, adapter.path)
        return judge_adapter(where, adapter, services)
    except AdapterbotError as error:
        return not_judged(adapter.key, adapter.path, error)


def judge_adapter(where: Sides, adapter: AdapterConfig, services: Services) -> AdapterReport:
    """One adapter, from its lock to its verdict.

    Raises:
        AdapterbotError: it cannot be judged.
    """
    refuse_disguised(where, normalise(adapter.path))
    where = staleness.as_merged(where, adapter)
    staleness.refuse_stale(where, adapter)
    stages = Stages(services.listener)
    with stages("lock"):
        locked = _locked(where, adapter)
    if signers := adapter.policy.attested_by or where.signers:
        with stages("attest"):
            path, lock_path = normalise(adapter.path), normalise(adapter.lock)
            attest.check(where.head, path, signers, lock=lock_path, policy=where.base)
    with stages("read"):
        case = read_case(where, adapter, services.suite_tree, services.suites)
    with stages("import"):
        make = services.engine()
    with stages("load"):
        evaluator = services.evaluator(case.base, make)
        case.prepare(evaluator, adapter.policy)
    with stages("scan"):
        looks = subjects.scan_notes(case.candidate.files)
    with stages("evaluate") as progress:
        measured = case.measure(evaluator, adapter.policy, progress)
        _keep(services, adapter.key, case, measured)
    tasks, before, after = measured.tasks, measured.before, measured.after
    shares: tuple[TaskRouting, ...] = ()
    if case.baseline.mixture or case.candidate.mixture:
        with stages("route"):
            mixtures = (case.baseline.mixture, case.candidate.mixture)
            shares = routing.measure(evaluator, tasks, mixtures, (before, after))
    noise_floor = None
    if adapter.policy.self_check and not case.bank:
        with stages("self-check") as progress:
            noise_floor = noise.measure(
                evaluator, tasks, case.baseline.files, before, adapter.policy.self_check, progress
            )
    with stages("decide"):
        metrics, outcome = verdict.judge(
            measured.compare(),
            case.policies,
            alpha=adapter.policy.alpha,
            fail_on=adapter.policy.fail_on,
        )
        outcome = verdict.with_lock(outcome, locked, fails=adapter.policy.on_drift is OnDrift.FAIL)
        broken = {m.delta.task for m in metrics if m.standing is Standing.REGRESSED}
        changed = differing_samples(before, after, first=broken)
    found: BisectResult | None = None
    regression = Regression.of(tasks, metrics, before, after)
    if regression.harms and not case.bank:
        with stages("bisect"):
            found = _bisect(where.head, adapter, regression, evaluator, case.candidate, services)
    return AdapterReport(
        key=adapter.key,
        adapter=adapter.path,
        base_model=case.base_name,
        baseline=case.baseline.ref,
        candidate=case.candidate.ref,
        lock=locked,
        verdict=outcome,
        metrics=metrics,
        samples=changed[:MAX_SHOWN_SAMPLES],
        samples_changed=len(changed),
        bisect=found,
        notes=(*case.notes, *looks, *weighted_change(metrics, tasks)),
        eval=evaluator.stats(),
        early=measured.stop,
        noise=noise_floor,
        routing=shares,
        stages=tuple(stages.finished),
    )


# ---------------------------------------------------------------- its steps


def _locked(where: Sides, adapter: AdapterConfig) -> LockResult:
    # Who moves an adapter must not lose its lock on the way.
    here = where.head.has(adapter.lock)
    return lock.check(
        where.head,
        adapter.lock if here else former(where, adapter).lock,
        adapter.config,
        before=where.base,
        allowed_base=where.allowed_base,
        adapter=normalise(adapter.path),
    ).record()


def _keep(services: Services, key: str, case: Case, measured: early.Measured) -> None:
    """Hands out what both sides answered, sample by sample."""
    tasks = tuple(map(saved_task, measured.tasks))
    for name, side, found in (
        ("baseline", case.baseline, measured.before),
        ("candidate", case.candidate, measured.after),
    ):
        head = SavedResults(
            tool=TOOL,
            adapter=side.ref,
            base_model=case.base_name,
            suite=case.suite.path,
            tasks=tasks,
        )
        services.keep(key, name, head, found)


def _bisect(
    tree: Tree,
    adapter: AdapterConfig,
    regression: Regression,
    evaluator: Evaluator,
    candidate: Side,
    services: Services,
) -> BisectResult:
    """Where it broke; that a history cannot be searched takes nothing from the verdict."""
    from adapterbot.bisect import Archive
    from adapterbot.probing.search import find_break
    from adapterbot.probing.training_run import TrainingRun

    if candidate.mixture:
        note = "a mixture keeps no checkpoints to search"
    elif adapter.archive is None:
        note = "no checkpoints are kept; name them as `archive` in adapterbot.yaml"
    else:
        try:
            archive = Archive(tree, services.cache)
            run = TrainingRun.of(archive, archive.find([adapter.archive]), adapter)
            last_bad, say = run.ends_in(candidate.ref.digest), services.listener.said
            return find_break(run, regression, evaluator, last_bad=last_bad, say=say)
        except AdapterbotError as error:
            note = str(error)[:1000]
    return BisectResult(verdict=BisectVerdict.NOT_RUN, note=note)
