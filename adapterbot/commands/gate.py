"""`adapterbot gate`: judge the adapters that a pull request changes, write the report, say so."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from adapterbot import __version__, pipeline
from adapterbot.commands import place as places
from adapterbot.commands.announcement import announce
from adapterbot.commands.audience import audience_for
from adapterbot.commands.evaluator import checkpoints_directory, chosen_server, engine
from adapterbot.commands.folders import out_directory
from adapterbot.commands.herald import Herald, Told
from adapterbot.commands.interrupts import Interrupted, Interrupts, interrupts
from adapterbot.commands.mistyped import refuse_mistyped
from adapterbot.commands.place import PULL_REQUEST_EVENTS
from adapterbot.commands.pledge import PLEDGE
from adapterbot.commands.progress import ProgressListener
from adapterbot.commands.token import client_for
from adapterbot.commands.written import Written, results_path, write
from adapterbot.config import key_of
from adapterbot.console import harmless_lines, listener_for
from adapterbot.context import Activity, Context
from adapterbot.errors import AdapterbotError, InputError, OurFailure
from adapterbot.eval.saved import save_results
from adapterbot.eval.settings import engine_settings
from adapterbot.judging import grounds
from adapterbot.pipeline import Services
from adapterbot.publishing import USUAL, Publishing
from adapterbot.records import Report, Source
from adapterbot.records.report import MAX_ADAPTERS
from adapterbot.render import Links
from adapterbot.selection import Overrides, select
from adapterbot.sides import Sides, sides
from adapterbot.stages import Listener, Stages
from adapterbot.telemetry import traced
from adapterbot.tree import Tree
from adapterbot.unjudged import AFTER_KEY, not_judged, stopped


@dataclass(frozen=True)
class GateOptions:
    """What was asked on the command line or through the action's inputs."""

    base: str | None = None
    head: str | None = None
    config: str | None = None
    adapter: str | None = None
    suite: str | None = None
    baseline: str | None = None
    checkpoints: str | None = None
    device: str | None = None
    engine: tuple[str, ...] = ()
    out: Path | None = None
    publishing: Publishing | None = USUAL
    sequential: bool = False
    server: str | None = None
    ray: str | None = None


def run(options: GateOptions, environment: Mapping[str, str] = os.environ) -> Written:
    """The gate, from an event or by hand; its report is told to everybody who should know.

    Raises:
        AdapterbotError: there is nobody to tell but the caller.
    """
    with traced(listener_for(environment), "gate", environment) as trace:
        written = _run(options, environment, trace.listener)
        trace.judged(written.report)
    return written


def _run(options: GateOptions, environment: Mapping[str, str], listener: Listener) -> Written:
    context = None if _is_by_hand(options, environment) else places.read_event(environment)
    directory = out_directory(options.out, environment)
    if context and context.activity in _OTHERS:
        raise InputError(
            "names no change to gate",
            file="workflow",
            field=f"on: {context.event}",
            fix=f"set the input `command: {context.activity}`, or use `on: pull_request`",
        )
    if context and context.activity is Activity.ANSWER:
        context = _asked_for(options, context, environment)
    if context and context.activity is Activity.NOTHING:
        listener.said(f"nothing to do: {context.reason}")
        nothing = Report(tool=f"adapterbot {__version__}", source=context.source(), adapters=())
        empty = write(nothing, directory)
        announce(empty, {}, environment)
        return empty
    herald = None
    if context and options.publishing:
        audience = audience_for(context, options.publishing, environment)
        herald = Herald(audience, listener.said, directory / PLEDGE, _GRACE)
    with interrupts() as signals:
        report = _judged(options, listener, context, herald, environment, signals)
        links = herald.audience.links if herald else Links()
        told = Told()
        written: Written | None = None
        failed: AdapterbotError | None = None
        try:
            with Stages(listener)("render"):
                written = write(report, directory, links)
        except AdapterbotError as error:
            failed = error  # a full disk; the pull request is told all the same
        if herald:
            try:
                with Stages(listener)("post"):
                    told = herald.ended(report, hurried=bool(signals.came))
            except AdapterbotError as error:
                failed = failed or error
        if written is not None:
            announce(written, told.comments, environment, annotate=not told.annotated)
    if failed:
        raise failed
    assert written is not None  # noqa: S101 or it failed
    return written


# Longer than importing and loading take where the disk is warm, and soon enough for a reader.
_GRACE = 10.0
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SHORTEST_SECRET = 6  # what is shorter is a switch
_OTHERS = {Activity.BISECT, Activity.PUBLISH}


def _asked_for(options: GateOptions, context: Context, environment: Mapping[str, str]) -> Context:
    """The commits that a comment's command was bound to, if the pull request is still there.

    Raises:
        InputError: they were not passed on, or somebody pushed since.
    """
    from adapterbot.gh.heads import head_of

    context = places.bound(context, options.base, options.head)
    client = client_for(context, environment)
    now = head_of(client, context.repository or "", context.pull_request or 0)
    if now.sha != context.head_sha:
        raise InputError(
            "the pull request has moved on since this was asked for",
            field="input head",
            fix="read the new commits, and ask again",
        )
    return context.model_copy(update={"from_fork": now.repository != context.repository})


def _is_by_hand(options: GateOptions, environment: Mapping[str, str]) -> bool:
    """A pull request is one whatever else was asked for: naming refs must not take the comment,
    the refusal of forks and the trusted suite away."""
    if environment.get("GITHUB_EVENT_NAME") in PULL_REQUEST_EVENTS:
        return False
    if options.base or options.head:
        return True
    on_runner = environment.get("GITHUB_ACTIONS") == "true"
    return not on_runner and not environment.get("GITHUB_EVENT_PATH")


def _judged(
    options: GateOptions,
    listener: Listener,
    context: Context | None,
    herald: Herald | None,
    environment: Mapping[str, str],
    signals: Interrupts,
) -> Report:
    """The report, whatever happens: what stops the gate becomes its content.

    Raises:
        InputError: of a person at a terminal, whose last report stays as it is.
    """
    source = context.source() if context else Source()
    named = [(key_of(options.adapter), options.adapter)] if options.adapter else []
    known: list[tuple[str, str]] = named
    typed = context is None and environment.get("GITHUB_ACTIONS") != "true"
    error: AdapterbotError
    try:
        root = places.checkout()
        place = (
            places.from_context(root, context, options.base, options.head)
            if context
            else places.by_hand(root, options.base, options.head, environment)
        )
        source = place.context.source()
        where = sides(place.base, place.head, options.config, place.fork_point)
        _refuse_fork(where, place.context)
        suite, suite_tree = _suite(options, place)
        configured = where.config.engine if where.config else None
        settings = engine_settings(configured, options.engine, options.device)
        server = chosen_server(where.config, options.server)
        out = out_directory(options.out, environment)
        services = Services(
            engine(None, environment, settings=settings, server=server, ray=options.ray),
            listener,
            checkpoints_directory(environment),
            suite_tree,
            keep=lambda key, side, head, found: save_results(
                results_path(out, key, side), head, found
            ),
        )
        overrides = Overrides(
            adapter=options.adapter,
            suite=suite,
            baseline=options.baseline,
            archive=options.checkpoints,
            sequential=options.sequential,
        )
        if typed:
            refuse_mistyped(where, overrides, suite_tree)
        adapters = select(where, overrides)
        known = [(adapter.key, adapter.path) for adapter in adapters]
        if not adapters:
            listener.said("no adapter changed between the base and the head")
        elif herald:
            services.listener = progress = ProgressListener(listener, herald)
            services.on_adapter = progress.judging
            # Beside the gate, which imports and loads meanwhile.
            herald.began(known, partial=bool(named))
        with closing(services):
            report = pipeline.gate(where, adapters, services, source, partial=bool(named))
            if not named and not suite:
                report = _with_left_behind(report, where)
        signals.hold()
        return _with_history(report, options, where, place, listener, environment)
    except AdapterbotError as stop:
        if typed and isinstance(stop, InputError):
            raise
        error = stop
    except Interrupted as stop:
        fix = "push again, or re-run the job" if context else "run it again: answers were kept"
        what = "job" if context else "gate"
        error = OurFailure(f"the {what} was ended ({stop.name})", fix=fix)
    except Exception as bug:  # noqa: BLE001 the outermost edge: no bug may leave a stale green
        sys.stderr.write(harmless_lines(_without_secrets(traceback.format_exc(), environment)))
        error = OurFailure(
            f"adapterbot stopped with {type(bug).__name__}",
            fix="see the job's log, and open an issue with it",
        )
    signals.hold()
    return stopped(known, source, error, partial=bool(named))


def _with_left_behind(report: Report, where: Sides) -> Report:
    """The report, with a section for a configuration or suite that would end every later gate."""
    error = grounds.left_behind(where)
    if error is None or len(report.adapters) == MAX_ADAPTERS:
        return report
    section = not_judged(AFTER_KEY, error.file or "the repository", error)
    return report.model_copy(update={"adapters": (*report.adapters, section)})


def _with_history(
    report: Report,
    options: GateOptions,
    where: Sides,
    place: places.Place,
    listener: Listener,
    environment: Mapping[str, str],
) -> Report:
    """The report with its metrics' past levels; of a push, its own are added to them.

    Only what is on the default branch makes history, so that no pull request can write it. That it
    cannot be read or written takes nothing from the verdict.
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
        if context.event == "push" and context.head_sha and options.publishing:
            history.keep(config, place.root, report, context.head_sha, context, environment)
    except AdapterbotError as error:
        listener.said(f"history: {error}")
    return report


def _without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A traceback without what an exception of a library might quote: a token, the key of a
    server or of a judge, whose variable the suite names."""
    for name, value in environment.items():
        secret = value.strip()
        if _SECRET.search(name) and len(secret) >= _SHORTEST_SECRET:
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
