"""Telling people: files, the comment, the job summary, outputs and annotations."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapterbot import atomic, render
from adapterbot.commands import place as places
from adapterbot.context import Context
from adapterbot.errors import ExitCode, InputError
from adapterbot.gh import workflow
from adapterbot.records import AdapterReport, LockStatus, Outcome, Report, Verdict
from adapterbot.unjudged import UNKNOWN_KEY, stopped

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
    if "failure" in kinds:
        return ExitCode.FAILURE
    if "bad_input" in kinds:
        return ExitCode.BAD_INPUT
    return ExitCode.FINDING if report.fails else ExitCode.CLEAN


def publish_comments(
    report: Report, context: Context, environment: Mapping[str, str], *, alone: bool
) -> dict[str, str]:
    """One sticky comment per adapter; key → URL. Nothing where there is no pull request.

    Args:
        alone: whether this report speaks for every adapter of the pull request. Then our older
            comments on adapters that it does not mention are brought up to date too; a leg of a
            matrix, which gates one adapter by name, leaves those of the other legs alone.

    Raises:
        AdapterbotError: the token, its permissions, or GitHub.
    """
    if not (context.can_comment and context.repository and context.pull_request):
        return {}
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        raise InputError(
            "there is no token to comment with",
            file="GITHUB_TOKEN",
            fix="pass `token: ${{ github.token }}`, or `publish: none`",
        )
    from adapterbot.gh.client import connect
    from adapterbot.gh.comments import our_keys, settle_comments

    client = connect(token, context.api_url)
    links = render.Links(run=context.run_url or "")
    repository, number = context.repository, context.pull_request
    sections = list(report.adapters)
    if alone:
        older = our_keys(client, repository, number)
        sections = _with_older(sections, older)
    bodies = {section.key: render.comment(report, section, links=links) for section in sections}
    return settle_comments(client, repository, number, bodies)


def _with_older(sections: list[AdapterReport], older: Collection[str]) -> list[AdapterReport]:
    """Sections for our older comments too, so that none goes on saying what no longer holds.

    When the gate stopped before it knew the adapters, every older comment says why.
    """
    missing = sorted(set(older) - {section.key for section in sections} - {UNKNOWN_KEY})
    stopped = next((section for section in sections if section.key == UNKNOWN_KEY), None)
    if stopped:
        speaking = [stopped.model_copy(update={"key": key}) for key in missing]
        return speaking or sections
    unchanged = Verdict(
        outcome=Outcome.PASSED,
        fails=False,
        reasons=("this pull request no longer changes the adapter",),
    )
    if UNKNOWN_KEY in older:
        missing.append(UNKNOWN_KEY)
    return sections + [AdapterReport(key=key, adapter=key, verdict=unchanged) for key in missing]


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
    written = write(report, out or Path(environment.get("RUNNER_TEMP") or ".adapterbot"))
    whole = any(adapter.key == UNKNOWN_KEY for adapter in report.adapters)
    comments = publish_comments(report, context, environment, alone=whole)
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
    """The action's outputs. With several adapters, the worst of them speaks."""
    order = ("not_judged", "regressed", "drift", "inconclusive", "passed")
    ranked = sorted(report.adapters, key=lambda adapter: order.index(adapter.verdict.outcome))
    if not ranked:
        return {
            "verdict": "unchanged",
            "lock-status": "",
            "first-bad-checkpoint": "",
            "comment-url": "",
        }
    worst = ranked[0]
    return {
        "verdict": worst.verdict.outcome.value,
        "lock-status": worst.lock.status.value if worst.lock else "",
        "first-bad-checkpoint": (worst.bisect.first_broken or "") if worst.bisect else "",
        "comment-url": comments.get(worst.key, ""),
    }


def annotated(adapter: AdapterReport) -> Iterator[str]:
    """Workflow commands that put a finding on the line it is about."""
    if adapter.problem:
        message = adapter.problem.message
        if adapter.problem.fix:
            message = f"{message}. {adapter.problem.fix}"
        yield workflow.annotation(
            workflow.Level.ERROR,
            message,
            file=adapter.problem.file,
            title=f"{adapter.adapter}: could not be judged",
        )
        return
    if adapter.lock and adapter.lock.status is LockStatus.DRIFT:
        for part in adapter.lock.parts:
            if not part.ok:
                yield workflow.annotation(
                    workflow.Level.ERROR,
                    f"{part.part} drifted from {adapter.lock.path}: {part.explanation}",
                    file=part.file,
                    line=part.line,
                    title="lock drift",
                )
    if adapter.verdict.fails:
        yield workflow.annotation(
            workflow.Level.ERROR,
            "; ".join(adapter.verdict.reasons),
            file=f"{adapter.adapter}/adapter_config.json",
            title=f"{adapter.adapter}: {adapter.verdict.outcome}",
        )
