"""`adapterbot bisect`: the checkpoint that broke it, searched by hand or from the Actions tab."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from adapterbot import TOOL, bisect
from adapterbot.bisect import Limits
from adapterbot.changes.conventions import discover
from adapterbot.changes.selection import Overrides, named_adapter, select
from adapterbot.changes.sides import Sides, sides
from adapterbot.commands import place as places
from adapterbot.commands.announcement import announce
from adapterbot.commands.bisect_command import JOURNAL, OUTPUT
from adapterbot.commands.evaluator import Computing, checkpoints_directory, engine
from adapterbot.commands.folders import out_directory
from adapterbot.commands.place import PULL_REQUEST_EVENTS
from adapterbot.commands.report_files import PAGE, REPORT, Written, write
from adapterbot.commands.spared import spare
from adapterbot.config import AdapterConfig, Server
from adapterbot.console import listener_for
from adapterbot.context import BisectInputs
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.eval.suite import load_suite, suite_files
from adapterbot.files import atomic
from adapterbot.files.tree import WorkTree
from adapterbot.git.commits import resolve_commit
from adapterbot.git.tree import GitTree
from adapterbot.lock.base_model import resolve_base
from adapterbot.probing.blame import TOKENS, Blame
from adapterbot.probing.names import Prior
from adapterbot.probing.prior import prior
from adapterbot.probing.search import SearchPlan, search, tasks_of
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import Report, Source
from adapterbot.stages import Listener, Stages
from adapterbot.telemetry import traced
from adapterbot.unjudged import stopped

if TYPE_CHECKING:
    from adapterbot.eval.engine import Engine


@dataclass(frozen=True)
class BisectOptions(Computing):
    """What was asked on the command line; the inputs of a dispatch fill what is empty."""

    checkpoints: tuple[str, ...] = ()
    adapter: str | None = None
    config: str | None = None
    suite: str | None = None
    metric: str | None = None
    out: Path | None = None
    confidence: float = 0.95
    limits: Limits = field(default_factory=Limits)
    resume: bool = False
    blame: bool = False
    prior: Prior = Prior.UNIFORM
    output: Path | None = None
    base: str | None = None
    head: str | None = None


def run(options: BisectOptions, environment: Mapping[str, str] = os.environ) -> Written:
    """Search the history of one adapter.

    Started from the Actions tab, the ref that was chosen there is trusted: starting a workflow
    takes write access. Asked for in a comment, the pull request brings its checkpoints and nothing
    else; config, suite and base model are the base branch's.

    Raises:
        AdapterbotError: the checkpoints, the suite or the base model cannot be used.
    """
    inputs, source = _dispatch(options, environment)
    with traced(listener_for(environment), "bisect", environment) as trace, ExitStack() as stack:
        try:
            written = _run(options, inputs, source, environment, trace.listener, stack)
        except AdapterbotError as error:
            if environment.get("GITHUB_EVENT_NAME") == "issue_comment":
                # The reply is made of the report: who asked is told why there was no search.
                report = stopped([], source, error, partial=True)
                announce(write(report, out_directory(options.out, environment)), {}, environment)
            raise
        trace.judged(written.report)
    return written


def _run(
    options: BisectOptions,
    inputs: BisectInputs,
    source: Source,
    environment: Mapping[str, str],
    listener: Listener,
    stack: ExitStack,
) -> Written:
    root = places.checkout()
    where = _sides(root, source, options.config)
    adapter = _adapter(where, options.adapter or inputs.adapter)
    patterns = _patterns(options, inputs, adapter)
    settings, server = options.chosen(where.config)
    _refuse_unfit(options, patterns, adapter, server)
    directory = out_directory(options.out, environment)
    if options.output:
        atomic.try_file(options.output, field=OUTPUT)
    stages = Stages(listener)
    archive = bisect.Archive(where.head, checkpoints_directory(environment))
    with stages("read"):
        checkpoints = archive.find(patterns)
        suite = load_suite(where.base, options.suite or adapter.suite)
        if options.output:
            state = (directory / name for name in (JOURNAL, REPORT, PAGE))
            judged = suite_files(where.base, suite.path)
            read = (adapter.config, *judged, *(one.path for one in checkpoints))
            here = (root / name for name in read if not bisect.is_elsewhere(name))
            spare(options.output, *state, *here, field=OUTPUT)
        metric = options.metric or inputs.metric or None
        tasks_of(suite, metric)
        base_name, base = resolve_base(where.base, adapter.config, where.allowed_base)
    run = TrainingRun.of(archive, checkpoints, adapter)
    with stages("prior"):
        expected = prior(options.prior, run)
    with stages("import"):
        make = engine(settings, environment, server=server, ray=options.ray)()
    with stages("load"):
        evaluator = stack.enter_context(closing(make(base)))
    blame = None
    if options.blame:
        base_model = cast("Engine", evaluator).base
        blame = Blame(base_model, suite.tasks, settings.token_budget or TOKENS)
    report = search(
        run,
        adapter,
        suite,
        evaluator,
        stages,
        metric=metric,
        base_model=base_name,
        plan=SearchPlan(
            confidence=options.confidence,
            limits=options.limits,
            journal=directory / JOURNAL,
            resume=options.resume,
            blame=blame,
            prior=expected,
        ),
    )
    whole = Report(tool=TOOL, source=source, adapters=(report,))
    written = write(whole, directory)
    if options.output and report.bisect:
        found = bisect.saved(report.bisect, checkpoints, confidence=options.confidence)
        atomic.write_text(options.output, found.model_dump_json(indent=2) + "\n")
    announce(written, {}, environment)
    return written


def _dispatch(
    options: BisectOptions, environment: Mapping[str, str]
) -> tuple[BisectInputs, Source]:
    if environment.get("GITHUB_EVENT_NAME") == "issue_comment":
        context = places.bound(places.read_event(environment), options.base, options.head)
        return context.bisect, context.source()
    if not environment.get("GITHUB_EVENT_PATH"):
        return BisectInputs(), Source()
    if environment.get("GITHUB_EVENT_NAME") in PULL_REQUEST_EVENTS:
        raise InputError(
            "a pull request does not start a bisect by itself",
            file="workflow",
            field=f"on: {environment['GITHUB_EVENT_NAME']}",
            fix="use `command: gate`, which bisects what regressed, or `on: workflow_dispatch`",
        )
    if environment.get("GITHUB_EVENT_NAME") != "workflow_dispatch":
        return BisectInputs(), Source()  # called by another workflow, with inputs of its own
    context = places.read_event(environment)
    return context.bisect, context.source()


def _patterns(
    options: BisectOptions, inputs: BisectInputs, adapter: AdapterConfig
) -> tuple[str, ...]:
    """Where the checkpoints are: as was typed, else as the dispatch or the configuration says."""
    one = inputs.checkpoints.strip() or adapter.archive
    patterns = options.checkpoints or ((one,) if one else ())
    if not patterns:
        raise InputError(
            "names no checkpoints",
            field="checkpoints",
            fix="name directories oldest first, or a pattern such as 'checkpoints/*'",
        )
    return patterns


def _refuse_unfit(
    options: BisectOptions,
    patterns: Sequence[str],
    adapter: AdapterConfig,
    server: Server | None,
) -> None:
    """Refuses options that the checkpoints, or whoever evaluates, cannot do."""
    histories = all(pattern.startswith(bisect.GIT) for pattern in patterns)
    if options.blame and adapter.archive_data is None and not histories:
        raise InputError(
            "needs to know which rows each checkpoint was trained on",
            field="--blame",
            fix="name them as `archive_data` in adapterbot.yaml",
        )
    if options.blame and (options.ray or server):
        raise InputError(
            "needs the base model in this process",
            field="--blame",
            fix="evaluate on this machine, without a server or a cluster",
        )
    if options.limits.jobs > 1 and server:
        raise InputError(
            "a server is asked under one adapter at a time",
            field="--jobs",
            fix="drop it, or evaluate on this machine",
        )


def _sides(root: Path, source: Source, config: str | None) -> Sides:
    """The commits that a comment was bound to; else the files on disk, which are trusted."""
    if not (source.head_sha and source.base_sha):
        here = WorkTree(root)
        return sides(here, here, config)
    base, head = (resolve_commit(root, sha) for sha in (source.base_sha, source.head_sha))
    tree = GitTree(root, base)
    fork_point, disputed = places.parted(root, tree, head)
    return sides(tree, GitTree(root, head), config, fork_point, disputed=disputed)


def _adapter(where: Sides, path: str | None) -> AdapterConfig:
    """The adapter that was named, or the only one; else, in a comment, which can name none, the
    one that its pull request changes."""
    if path:
        return named_adapter(where, path)
    adapters = (where.config or discover(where.head.survey())).adapters
    if len(adapters) == 1:
        return adapters[0]
    if where.base is where.head:
        raise InputError(
            f"holds {len(adapters)} adapters", file="adapterbot.yaml", fix="name one with --adapter"
        )
    changed = select(where, Overrides())
    if len(changed) != 1:
        raise InputError(
            f"changes {len(changed)} adapters, and a comment cannot name one",
            file="the pull request",
            fix="search the checkpoints of one from the Actions tab",
        )
    return changed[0]
