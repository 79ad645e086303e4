"""The report of a gate, whatever happens: what it finds, or why it could not go on."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from adapterbot import pipeline
from adapterbot.beside import SECRET
from adapterbot.changes.selection import Overrides, named_adapter, select
from adapterbot.changes.sides import Sides
from adapterbot.commands import place as places
from adapterbot.commands.evaluator import Computing, checkpoints_directory, engine
from adapterbot.commands.folders import out_directory
from adapterbot.commands.herald import Herald
from adapterbot.commands.interrupts import Interrupted, Interrupts
from adapterbot.commands.report_files import results_path
from adapterbot.config import key_of
from adapterbot.console import harmless_lines
from adapterbot.context import Context
from adapterbot.errors import AdapterbotError, EndedEarly, InputError, OurFailure
from adapterbot.eval.saved import save_results
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree
from adapterbot.judging import grounds
from adapterbot.pipeline import Services
from adapterbot.publishing import USUAL, Publishing
from adapterbot.records import Report, Source
from adapterbot.records.report import MAX_ADAPTERS
from adapterbot.stages import Listener
from adapterbot.unjudged import AFTER_KEY, not_judged, stopped

# What a reader of the comment cares for; every other stage is over before anyone looks.
_WORDS = {
    "load": "loading the base model",
    "evaluate": "answering the suite with both adapters",
    "bisect": "searching the checkpoints for the one that broke it",
}
_SHORTEST_SECRET = 6  # what is shorter is a switch
_ENDED_JOB = ("job", "a newer commit has a run of its own; otherwise re-run the job")
_ENDED_BY_HAND = ("gate", "run it again: answers were kept")


@dataclass(frozen=True)
class GateOptions(Computing):
    """What was asked on the command line or through the action's inputs."""

    base: str | None = None
    head: str | None = None
    config: str | None = None
    adapter: str | None = None
    suite: str | None = None
    baseline: str | None = None
    checkpoints: str | None = None
    out: Path | None = None
    publishing: Publishing | None = USUAL
    sequential: bool = False


def report_of(gate: Gate, signals: Interrupts) -> Report:
    """The report, whatever happens: what stops the gate becomes its content.

    Raises:
        InputError: of a person at a terminal, whose last report stays as it is.
    """
    error: AdapterbotError
    try:
        return gate.judge(signals)
    except AdapterbotError as stop:
        if gate.typed and isinstance(stop, InputError):
            raise
        error = stop
    except Interrupted as stop:
        what, fix = _ENDED_JOB if gate.context else _ENDED_BY_HAND
        error = EndedEarly(f"the {what} was ended ({stop.name})", fix=fix)
    except Exception as bug:  # noqa: BLE001 the outermost edge: no bug may leave a stale green
        trace = _without_secrets(traceback.format_exc(), gate.environment)
        sys.stderr.write(harmless_lines(trace))
        error = OurFailure(
            f"adapterbot stopped with {type(bug).__name__}",
            fix="see the job's log, and open an issue with it",
        )
    signals.hold()
    return stopped(gate.known, gate.source, error, partial=gate.partial)


class Gate:
    """A gate under way, and what can be said of it should it be stopped.

    Attributes:
        source: where its report comes from, as far as is known.
        known: key and path of every adapter that it is about, as far as is known.
        partial: one adapter was named, so nothing is said of the others.
        typed: a person started it at a terminal.
    """

    def __init__(
        self,
        options: GateOptions,
        environment: Mapping[str, str],
        listener: Listener,
        context: Context | None,
        herald: Herald | None,
    ) -> None:
        self.options = options
        self.environment = environment
        self.listener = listener
        self.context = context
        self.herald = herald
        self.source = context.source() if context else Source()
        self.known: list[tuple[str, str]] = []
        if options.adapter:
            self.known.append((key_of(options.adapter), options.adapter))
        self.partial = bool(self.known)
        self.typed = context is None and environment.get("GITHUB_ACTIONS") != "true"

    def judge(self, signals: Interrupts) -> Report:
        """Every adapter that it is about, judged.

        Raises:
            AdapterbotError: it cannot go on.
        """
        options = self.options
        root = places.checkout()
        place = (
            places.from_context(root, self.context, options.base, options.head)
            if self.context
            else places.by_hand(root, options.base, options.head)
        )
        self.source = place.context.source()
        where = place.sides(options.config)
        _refuse_fork(where, place.context)
        suite, suite_tree = _suite(options, place)
        services = self._services(where, suite_tree)
        overrides = Overrides(
            adapter=options.adapter,
            suite=suite,
            baseline=options.baseline,
            archive=options.checkpoints,
            sequential=options.sequential,
        )
        if self.typed:
            _refuse_mistyped(where, overrides, suite_tree)
        adapters = select(where, overrides, self.listener.said)
        self.known = [(adapter.key, adapter.path) for adapter in adapters]
        if not adapters:
            self.listener.said("no adapter changed between the base and the head")
        elif self.herald:
            services.listener = progress = _ProgressListener(self.listener, self.herald)
            services.on_adapter = progress.judging
            # Beside the gate, which imports and loads meanwhile.
            self.herald.began(self.known, partial=self.partial)
        with closing(services):
            report = pipeline.gate(where, adapters, services, self.source, partial=self.partial)
            if not self.partial and not suite:
                report = _with_left_behind(report, where)
        signals.hold()
        return self._with_history(report, where, place)

    def _services(self, where: Sides, suite_tree: Tree | None) -> Services:
        """The outside world, as the base ref's configuration and the command line have it."""
        options, environment = self.options, self.environment
        settings, server = options.chosen(where.config)
        out = out_directory(options.out, environment)
        return Services(
            engine(settings, environment, server=server, ray=options.ray),
            self.listener,
            checkpoints_directory(environment),
            suite_tree,
            keep=lambda key, side, head, found: save_results(
                results_path(out, key, side), head, found
            ),
        )

    def _with_history(self, report: Report, where: Sides, place: places.Place) -> Report:
        """The report with its metrics' past levels; of a push, its own are added to them.

        Only what is on the default branch makes history, so that no pull request can write it.
        That it cannot be read or written takes nothing from the verdict.
        """
        config = where.config.history if where.config else None
        if config is None:
            return report
        from adapterbot.commands import history
        from adapterbot.history.results import with_trends

        context = place.context
        try:
            past = history.read(config, place.root)
            others = [result for result in past if result.commit != context.head_sha]
            report = with_trends(report, others)
            if context.event == "push" and context.head_sha and self.options.publishing:
                history.keep(config, place.root, report, context.head_sha, self.environment)
        except AdapterbotError as error:
            self.listener.said(f"history: {error}")
        return report


@dataclass
class _ProgressListener:
    """Tells the log everything, and the herald how far the adapter at work is."""

    log: Listener
    herald: Herald
    key: str = ""

    def judging(self, key: str) -> None:
        """From here on stages are about this adapter."""
        self.key = key
        self.herald.at(key, "checking the lock")

    def opened(self, stage: str) -> None:
        self.log.opened(stage)
        if stage in _WORDS:
            self.herald.at(self.key, _WORDS[stage])
        if stage == "evaluate":
            self.herald.free()

    def closed(self, stage: str, seconds: float) -> None:
        self.log.closed(stage, seconds)

    def advanced(self, stage: str, done: int, total: int) -> None:
        self.log.advanced(stage, done, total)
        if stage in _WORDS and total > 0:
            self.herald.at(self.key, _WORDS[stage], done / total)

    def said(self, message: str) -> None:
        self.log.said(message)


def _with_left_behind(report: Report, where: Sides) -> Report:
    """The report, with a section for a configuration or suite that would end every later gate."""
    error = grounds.left_behind(where)
    if error is None or len(report.adapters) == MAX_ADAPTERS:
        return report
    section = not_judged(AFTER_KEY, error.file or "the repository", error)
    return report.model_copy(update={"adapters": (*report.adapters, section)})


def _without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A traceback without what an exception of a library might quote: a token, the key of a
    server or of a judge, whose variable the suite names."""
    for name, value in environment.items():
        secret = value.strip()
        if SECRET.search(name) and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def _refuse_fork(where: Sides, context: Context) -> None:
    allowed = where.config.allow_forks if where.config else False
    if context.from_fork and context.self_hosted and not allowed:
        raise InputError(
            "a pull request from a fork does not run on a self-hosted runner",
            file="workflow",
            field="runs-on",
            fix="review it, then set `allow_forks: true` in adapterbot.yaml on the base branch",
        )


def _suite(options: GateOptions, place: places.Place) -> tuple[str | None, Tree | None]:
    """The suite that was named, and the files it lies among.

    By hand that is a file on disk. On a pull request it is a path at the base ref, always: the
    pull request must not choose what it is judged by.
    """
    if options.suite is None:
        return None, None
    if place.context.event != "manual":
        return options.suite, None
    tree, path = places.named_file(Path(options.suite), place.root)
    return path, tree


def _refuse_mistyped(where: Sides, overrides: Overrides, suite_tree: Tree | None) -> None:
    """Refuses what a person typed that names what is nowhere. On a runner the same mistakes become
    a comment: they must not leave a pull request green.

    Args:
        suite_tree: the files that the suite lies among, None where it is not named by hand.
    """
    adapter, suite, baseline = overrides.adapter, overrides.suite, overrides.baseline
    if adapter and not where.fork_point.has(normalise(adapter)):
        named_adapter(where, adapter)
    if suite and suite_tree is not None and not suite_tree.has(suite):
        raise InputError(
            "does not exist", file=suite, field="--suite", fix="name the suite's YAML file"
        )
    if not baseline or baseline in ("none", "base-ref"):
        return
    if not where.base.has(normalise(baseline, field="--baseline")):
        raise InputError(
            f"does not exist in {where.base.label}",
            file=baseline,
            field="--baseline",
            fix="write `base-ref`, `none`, or the path of an adapter that is committed there",
        )
