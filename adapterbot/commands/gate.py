"""`adapterbot gate`: judge the adapters that a pull request changes, write the report, say so."""

from __future__ import annotations

import os
from collections.abc import Mapping

from adapterbot.commands import place as places
from adapterbot.commands.announcement import announce, announce_nothing
from adapterbot.commands.audience import audience_for
from adapterbot.commands.folders import out_directory
from adapterbot.commands.gate_report import Gate, GateOptions, report_of
from adapterbot.commands.herald import Herald, Told
from adapterbot.commands.interrupts import interrupts
from adapterbot.commands.place import PULL_REQUEST_EVENTS
from adapterbot.commands.pledge import PLEDGE
from adapterbot.commands.report_files import Written, write
from adapterbot.console import listener_for
from adapterbot.context import Activity, Context
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.gh.access import client_for
from adapterbot.render import Links
from adapterbot.stages import Listener, Stages
from adapterbot.telemetry import traced

__all__ = ["GateOptions", "run"]

# Longer than importing and loading take where the disk is warm, and soon enough for a reader.
_GRACE = 10.0
_OTHERS = {Activity.BISECT, Activity.PUBLISH}


def run(options: GateOptions, environment: Mapping[str, str] = os.environ) -> Written:
    """The gate, from an event or by hand; its report goes to everybody who should see it.

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
        return announce_nothing(context, directory, environment)
    herald = None
    if context and options.publishing:
        audience = audience_for(context, options.publishing, environment)
        herald = Herald(audience, listener.said, directory / PLEDGE, _GRACE)
    with interrupts() as signals:
        report = report_of(Gate(options, environment, listener, context, herald), signals)
        links = herald.audience.links if herald else Links()
        told = Told()
        written: Written | None = None
        failed: AdapterbotError | None = None
        try:
            with Stages(listener)("render"):
                written = write(report, directory, links)
                report = written.report
        except AdapterbotError as error:
            failed = error  # a full disk; the result is posted all the same
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


def _asked_for(options: GateOptions, context: Context, environment: Mapping[str, str]) -> Context:
    """The commits that a comment's command was bound to, if the pull request is still there."""
    from adapterbot.gh.heads import head_of

    context = places.bound(context, options.base, options.head)
    client = client_for(context.repository, environment)
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
