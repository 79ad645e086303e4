"""Telling people: files, the comment, the job summary, outputs and annotations."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from adapterbot import atomic, render
from adapterbot.commands import place as places
from adapterbot.context import Context
from adapterbot.errors import ExitCode, InputError, OurFailure
from adapterbot.gh import workflow
from adapterbot.records import (
    AdapterReport,
    Comparison,
    LockResult,
    LockStatus,
    Outcome,
    Problem,
    Report,
    Verdict,
)
from adapterbot.unjudged import UNKNOWN_KEY, stopped

if TYPE_CHECKING:
    from adapterbot.gh.client import Client

MAX_REPORT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Written:
    """What a run left behind."""

    report: Report
    report_path: Path
    comment_paths: tuple[Path, ...]
    summary_path: Path
    html_path: Path


def write(report: Report, directory: Path) -> Written:
    """report.json, summary.md, comment.html, and comment.md (one per adapter when several).

    Raises:
        AdapterbotError: the directory cannot be written.
    """
    several = len(report.adapters) > 1
    comments = {
        directory / (f"comment-{adapter.key}.md" if several else "comment.md"): adapter
        for adapter in report.adapters
    }
    for path, adapter in comments.items():
        atomic.write_text(path, render.comment(report, adapter))
    written = Written(
        report=report,
        report_path=directory / "report.json",
        comment_paths=tuple(comments),
        summary_path=directory / "summary.md",
        html_path=directory / "comment.html",
    )
    atomic.write_text(written.report_path, render.json_text(report))
    atomic.write_text(written.summary_path, render.summary(report))
    atomic.write_text(written.html_path, render.html(report))
    return written


def exit_code(report: Report) -> ExitCode:
    """Our failures before bad input before findings: a failure is never reported as a finding."""
    kinds = {problem.kind for problem in report.problems}
    silent = [
        adapter
        for adapter in report.adapters
        if adapter.verdict.outcome is Outcome.NOT_JUDGED and adapter.problem is None
    ]
    # A suite too small to decide is the suite's fault; an answer that never came is ours.
    ours = any(
        m.gated and m.delta.outcome is Comparison.INCOMPLETE for a in silent for m in a.metrics
    )
    if "failure" in kinds or ours:
        return ExitCode.FAILURE
    if "bad_input" in kinds or silent:
        return ExitCode.BAD_INPUT
    return ExitCode.FINDING if report.fails else ExitCode.CLEAN


@dataclass(frozen=True)
class _Thread:
    """The pull request that we comment on."""

    client: Client
    repository: str
    number: int


def _thread(context: Context, environment: Mapping[str, str]) -> _Thread | None:
    if not (context.can_comment and context.repository and context.pull_request):
        return None
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        raise InputError(
            "there is no token to comment with",
            file="GITHUB_TOKEN",
            fix="pass `token: ${{ github.token }}`, or `publish: none`",
        )
    from adapterbot.gh.client import connect

    client = connect(token, context.api_url)
    return _Thread(client, context.repository, context.pull_request)


def announce_start(
    adapters: Sequence[tuple[str, str]], context: Context, environment: Mapping[str, str]
) -> None:
    """Say on every adapter's comment that the gate is at work, in place of what it said before.

    Raises:
        AdapterbotError: the token, its permissions, or GitHub.
    """
    thread = _thread(context, environment)
    if thread is None:
        return
    from adapterbot.gh.comments import settle_comments

    links = render.Links(run=context.run_url or "")
    bodies = {
        key: render.progress(key, path, head_sha=context.head_sha, links=links)
        for key, path in adapters
    }
    settle_comments(thread.client, thread.repository, thread.number, bodies)


def publish_comments(
    report: Report, context: Context, environment: Mapping[str, str]
) -> dict[str, str]:
    """One sticky comment per adapter; key → URL. Nothing where there is no pull request.

    A report that is not partial speaks for every adapter of the pull request, so our older comments
    on adapters that it does not mention are brought up to date too. A leg of a matrix, which gates
    one adapter by name, leaves those of the other legs alone.

    Raises:
        AdapterbotError: the token, its permissions, or GitHub.
    """
    thread = _thread(context, environment)
    if thread is None:
        return {}
    from adapterbot.gh.comments import our_keys, settle_comments

    links = render.Links(run=context.run_url or "")
    sections = list(report.adapters)
    if not report.partial:
        older = our_keys(thread.client, thread.repository, thread.number)
        sections = _with_older(sections, older)
    bodies = {section.key: render.comment(report, section, links=links) for section in sections}
    return settle_comments(thread.client, thread.repository, thread.number, bodies)


def _with_older(sections: list[AdapterReport], older: Collection[str]) -> list[AdapterReport]:
    """Sections for our older comments too, so that none goes on saying what no longer holds.

    When the gate stopped before it knew the adapters, every older comment says why.
    """
    stopped = next((section for section in sections if section.key == UNKNOWN_KEY), None)
    if stopped:
        keys = sorted(older) or [UNKNOWN_KEY]
        return [stopped.model_copy(update={"key": key}) for key in keys]
    missing = sorted(set(older) - {section.key for section in sections})
    return sections + [AdapterReport(key=k, adapter=k, verdict=_unchanged(k)) for k in missing]


def _unchanged(key: str) -> Verdict:
    reason = "this pull request no longer changes the adapter"
    if key == UNKNOWN_KEY:
        reason = "the gate runs again; its findings are in the other comments, if there are any"
    return Verdict(outcome=Outcome.PASSED, fails=False, reasons=(reason,))


def run(
    report_path: Path, out: Path | None, environment: Mapping[str, str] = os.environ
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
    try:
        report = read_report(report_path)
        _same_origin(report, context, report_path)
    except InputError as error:
        report = stopped([], context.source(), error)
    try:
        written = write(report, places.out_directory(out, environment))
    except Exception as error:  # noqa: BLE001 the outermost edge: a report that we cannot render
        failure = OurFailure(f"the report could not be rendered: {type(error).__name__}")
        report = stopped([], context.source(), failure)
        written = write(report, places.out_directory(out, environment))
    comments: dict[str, str] = {}
    try:
        comments = publish_comments(report, context, environment)
    finally:
        announce(written, comments, environment)
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


def read_report(path: Path) -> Report:
    """Read report.json, bounded and validated.

    Raises:
        InputError: missing, too large, or not what our schema says.
    """
    fix = "pass the report.json that `adapterbot gate` wrote"
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise InputError(f"is larger than {MAX_REPORT_BYTES:,} bytes", file=path.name, fix=fix)
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            "is not there: the job that evaluates left no report",
            file=path.name,
            fix="see that job's log",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(
            first["msg"].lower(),
            file=path.name,
            field=".".join(str(part) for part in first["loc"]) or None,
            fix=fix,
        ) from error


def announce(written: Written, comments: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Outputs, job summary and annotations, where a runner reads them."""
    report = written.report
    if environment.get("GITHUB_STEP_SUMMARY"):
        summary = written.summary_path.read_text(encoding="utf-8")
        workflow.append_summary(Path(environment["GITHUB_STEP_SUMMARY"]), summary)
    if environment.get("GITHUB_OUTPUT"):
        workflow.write_outputs(
            Path(environment["GITHUB_OUTPUT"]),
            {**outputs(report, comments), "report-path": str(written.report_path)},
        )
    if environment.get("GITHUB_ACTIONS") == "true":
        for adapter in report.adapters:
            for line in annotated(adapter):
                sys.stderr.write(f"{line}\n")


def outputs(report: Report, comments: Mapping[str, str]) -> dict[str, str]:
    """The action's outputs. With several adapters, the worst of each is the one that is told."""
    order = list(_WORST_FIRST)
    ranked = sorted(report.adapters, key=lambda adapter: order.index(adapter.verdict.outcome))
    locks = [adapter.lock.status for adapter in report.adapters if adapter.lock]
    lock_order = [LockStatus.DRIFT, LockStatus.MISSING, LockStatus.OK]
    broken = [a.bisect.first_broken for a in ranked if a.bisect and a.bisect.first_broken]
    return {
        "verdict": ranked[0].verdict.outcome.value if ranked else "unchanged",
        "lock-status": min(locks, key=lock_order.index).value if locks else "",
        "first-bad-checkpoint": broken[0] if broken else "",
        "comment-url": comments.get(ranked[0].key, "") if ranked else "",
    }


_WORST_FIRST = (
    Outcome.NOT_JUDGED,
    Outcome.REGRESSED,
    Outcome.DRIFT,
    Outcome.INCONCLUSIVE,
    Outcome.PASSED,
)


def annotated(adapter: AdapterReport) -> Iterator[str]:
    """Workflow commands that put a finding on the line it is about."""
    if adapter.problem:
        yield problem_annotation(adapter.problem, f"{adapter.adapter}: could not be judged")
        return
    level = workflow.Level.ERROR if adapter.verdict.fails else workflow.Level.WARNING
    if adapter.lock:
        yield from drift_annotations(adapter.lock, level)
    if adapter.verdict.outcome is not Outcome.PASSED:
        yield workflow.annotation(
            level,
            "; ".join(adapter.verdict.reasons),
            file=f"{adapter.adapter}/adapter_config.json",
            title=f"{adapter.adapter}: {adapter.verdict.outcome}",
        )


def drift_annotations(lock: LockResult, level: workflow.Level) -> Iterator[str]:
    """Each drifted part on the line that names it, and advice as a notice."""
    for part in lock.parts if lock.status is LockStatus.DRIFT else ():
        if not part.ok:
            yield workflow.annotation(
                workflow.Level.NOTICE if part.advisory else level,
                f"{part.part} drifted from {lock.path}: {part.explanation}",
                file=part.file,
                line=part.line,
                title="lock drift",
            )


def problem_annotation(problem: Problem, title: str) -> str:
    """An error as an annotation, on its file and line where it names them."""
    said = ": ".join(part for part in (problem.field, problem.message) if part)
    line = re.search(r"\bline (\d+)", problem.field or "")
    return workflow.annotation(
        workflow.Level.ERROR,
        f"{said}. {problem.fix}" if problem.fix else said,
        file=problem.file,
        line=int(line[1]) if line else None,
        title=title,
    )
