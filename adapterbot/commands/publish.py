"""`adapterbot publish`: post a report that another job made, without believing it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapterbot.commands import place as places
from adapterbot.commands.announcement import announce, announce_nothing
from adapterbot.commands.audience import audience_for
from adapterbot.commands.folders import out_directory
from adapterbot.commands.herald import Herald, Told
from adapterbot.commands.report_files import Written, parse_report, read_report, write
from adapterbot.commands.report_size import MAX_REPORT_BYTES, within
from adapterbot.console import listener_for
from adapterbot.context import Activity, Context
from adapterbot.errors import InputError, OurFailure
from adapterbot.gh.access import client_for
from adapterbot.publishing import USUAL, Publishing
from adapterbot.records import Report
from adapterbot.records.report import MAX_ADAPTERS
from adapterbot.unjudged import stopped

REPORT = Path("report.json")
ARTIFACT = "adapterbot-report"


def run(
    report_path: Path | None,
    out: Path | None,
    publishing: Publishing = USUAL,
    *,
    head: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Written:
    """Post a report that another job made for the very commit that this event is about.

    The report is a stranger's: it is bounded, validated and rendered as inert text, and what it
    says of its own origin is only compared with the event. Of several pull requests from the branch
    that the event is about it says which.
    A report that is missing or does not fit is reported there too: silence could leave an older
    comment green.

    Args:
        report_path: report.json; None takes the artifacts of the run that a `workflow_run` event
            is about, and otherwise `report.json`.
        head: the commit that a comment's command was bound to; other events name their own.

    Raises:
        AdapterbotError: the event, the token, or GitHub.
    """
    context = places.read_event(environment)
    if context.activity is Activity.ANSWER:
        context = places.bound(context, None, head)
    say = listener_for(environment).said
    directory = out_directory(out, environment)
    if context.activity is Activity.NOTHING:
        say(f"nothing to do: {context.reason}")
        return announce_nothing(context, directory, environment)
    pulls = [context]
    if context.event == "workflow_run":
        pulls = _pulls_of(context, environment)
        if not pulls:
            say("nothing to do: no open pull request is at the commit that the run was about")
            return announce_nothing(context, directory, environment)
    try:
        context, report = _report(report_path, pulls, environment)
    except InputError as error:
        context = pulls[0]
        report = stopped([], context.source(), error)
    audience = audience_for(context, publishing, environment, with_artifact=True)
    try:
        written = write(report, directory, audience.links)
    except InputError as error:  # what lies in the folder
        report = stopped([], context.source(), error)
        written = write(report, directory, audience.links)
    except Exception as error:  # noqa: BLE001 the outermost edge: a report that we cannot render
        failure = OurFailure(f"the report could not be rendered: {type(error).__name__}")
        report = stopped([], context.source(), failure)
        written = write(report, directory, audience.links)
    told = Told()
    try:
        told = Herald(audience, say).ended(written.report)
    finally:
        announce(written, told.comments, environment, annotate=not told.annotated)
    return written


def _pulls_of(context: Context, environment: Mapping[str, str]) -> list[Context]:
    """The context with each pull request that the run may have been about; none where all have
    moved on.

    Found by the head's repository, branch and commit, all of them GitHub's word. From one branch
    there may be pull requests to several bases: which of these it is, only the report knows.
    """
    from adapterbot.gh.heads import heads_of

    if not (context.repository and context.origin and context.head_sha):
        return []
    client = client_for(context.repository, environment)
    heads = heads_of(client, context.repository, context.origin, context.head_sha)
    return [
        context.model_copy(
            update={
                "pull_request": head.number,
                "base_sha": head.base_sha,
                "can_comment": True,
            }
        )
        for head in sorted(heads, key=lambda head: head.number)
    ]


def _report(
    path: Path | None, pulls: Sequence[Context], environment: Mapping[str, str]
) -> tuple[Context, Report]:
    """The report, or those of a matrix as one, checked to come from where it must; and the pull
    request that it is about.
    """
    if pulls[0].event == "workflow_run" and pulls[0].from_fork:
        _refuse_own_workflow(pulls, environment)
    if path is None and pulls[0].event == "workflow_run":
        return _downloaded(pulls, environment)
    report = read_report(path or REPORT)
    return _origin(report, pulls, (path or REPORT).name), report


def _refuse_own_workflow(pulls: Sequence[Context], environment: Mapping[str, str]) -> None:
    """Refuses the report of a fork's pull request that changes workflows: one of them may have the
    name of the gate's, and upload whatever report it likes.

    Raises:
        InputError: it does.
    """
    from adapterbot.gh.heads import workflow_in

    repository = pulls[0].repository or ""
    client = client_for(repository, environment)
    for pull in pulls:
        if name := workflow_in(client, repository, pull.pull_request or 0):
            raise InputError(
                "is changed by this pull request of a fork, so that the report may be made up",
                file=name,
                fix="have somebody who may push bring in the change of the workflow first",
            )


def _downloaded(pulls: Sequence[Context], environment: Mapping[str, str]) -> tuple[Context, Report]:
    from adapterbot.gh import artifacts

    context = pulls[0]
    client = client_for(context.repository, environment)
    repository = context.repository or ""
    found = artifacts.find(client, repository, context.run_id, ARTIFACT)
    if not found:
        raise InputError(
            "is not there: the run that evaluates left no report",
            file=ARTIFACT,
            fix="see that run's log",
        )
    whole: Report | None = None
    for artifact in found:
        content = artifacts.fetch(client, repository, artifact, MAX_REPORT_BYTES)
        report = parse_report(content, artifact.name)
        context = _origin(report, pulls if whole is None else [context], artifact.name)
        # One at a time: all that a stranger may upload is more than a runner's memory.
        whole = report if whole is None else _joined(whole, report)
    assert whole is not None  # noqa: S101 there is one at least
    if len(whole.adapters) > MAX_ADAPTERS:
        raise InputError(
            f"the reports judge {len(whole.adapters)} adapters, more than the {MAX_ADAPTERS} of "
            "one",
            file=ARTIFACT,
            fix="publish them from several runs",
        )
    return context, whole


def _joined(whole: Report, leg: Report) -> Report:
    """A report with another leg's of its matrix: each named its adapter, and none speaks for those
    that nobody judged."""
    known = {section.key for section in whole.adapters}
    for section in leg.adapters:
        if section.key in known:
            raise InputError(
                f"two reports judge the adapter {section.key!r}",
                file=ARTIFACT,
                fix="let one leg of the matrix judge it",
            )
    sections = (*whole.adapters, *leg.adapters)
    return within(whole.model_copy(update={"partial": True, "adapters": sections}))


def _origin(report: Report, pulls: Sequence[Context], name: str) -> Context:
    """Hold what a report says of its origin against what GitHub says: which of these it is about.

    The run is compared too: a report of an earlier run about the same commit may be older than
    what it was judged against. Attempts are not, since re-running only the posting job is fine.
    """
    named = (pull for pull in pulls if pull.pull_request == report.source.pull_request)
    context = next(named, pulls[0])
    for field in ("repository", "pull_request", "head_sha", "run_url"):
        said, known = getattr(report.source, field), getattr(context, field)
        # A run of a fork's pull request knows its number as well as we do.
        if said != known:
            raise InputError(
                f"is {said!r}, but this event is about {known!r}",
                file=name,
                field=f"source.{field}",
                fix="publish the report that the gate made for this very commit",
            )
    return context
