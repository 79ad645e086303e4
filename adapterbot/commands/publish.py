"""`adapterbot publish`: post a report that another job made, without believing it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adapterbot.commands import place as places
from adapterbot.commands.announcement import announce
from adapterbot.commands.herald import Told, herald_for
from adapterbot.commands.written import Written, read_report, write
from adapterbot.console import listener_for
from adapterbot.context import Context
from adapterbot.errors import InputError, OurFailure
from adapterbot.publishing import USUAL, Publishing
from adapterbot.records import Report
from adapterbot.unjudged import stopped


def run(
    report_path: Path,
    out: Path | None,
    publishing: Publishing = USUAL,
    environment: Mapping[str, str] = os.environ,
) -> Written:
    """Post a report that another job made for the very commit that this event is about.

    The report is a stranger's: it is bounded, validated and rendered as inert text, and what it
    says of its own origin is only compared with the event, never used to find the pull request.
    One that is missing or does not fit is said on the pull request too: silence could leave an
    older comment green.

    Raises:
        AdapterbotError: the event, the token, or GitHub.
    """
    context = places.read_event(environment)
    herald = herald_for(
        context, publishing, environment, listener_for(environment).said, with_artifact=True
    )
    directory = places.out_directory(out, environment)
    try:
        report = read_report(report_path)
        _same_origin(report, context, report_path)
    except InputError as error:
        report = stopped([], context.source(), error)
    try:
        written = write(report, directory, herald.links)
    except Exception as error:  # noqa: BLE001 the outermost edge: a report that we cannot render
        failure = OurFailure(f"the report could not be rendered: {type(error).__name__}")
        report = stopped([], context.source(), failure)
        written = write(report, directory, herald.links)
    told = Told()
    try:
        told = herald.ended(report)
    finally:
        announce(written, told.comments, environment, annotate=not told.annotated)
    return written


def _same_origin(report: Report, context: Context, path: Path) -> None:
    for field in ("repository", "pull_request", "head_sha"):
        said, known = getattr(report.source, field), getattr(context, field)
        if said != known:
            raise InputError(
                f"is {said!r}, but this event is about {known!r}",
                file=path.name,
                field=f"source.{field}",
                fix="publish the report that the gate made for this very commit",
            )
