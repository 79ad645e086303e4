"""Telling people: files, the comment, the job summary, outputs and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterbot import atomic, render
from adapterbot.context import Context
from adapterbot.errors import InputError
from adapterbot.gh import workflow
from adapterbot.records import AdapterReport, LockStatus, Report


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


def publish_comments(
    report: Report, context: Context, environment: Mapping[str, str]
) -> dict[str, str]:
    """One sticky comment per adapter; key → URL. Nothing where there is no pull request.

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
    from adapterbot.gh.comments import settle_comments

    bodies = {adapter.key: render.comment(report, adapter) for adapter in report.adapters}
    return settle_comments(
        connect(token, context.api_url),
        context.repository,
        context.pull_request,
        bodies,
    )


def announce(
    written: Written, comments: Mapping[str, str], environment: Mapping[str, str]
) -> None:
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
        import sys

        for adapter in report.adapters:
            for line in annotations(adapter):
                print(line, file=sys.stderr, flush=True)


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


def annotations(adapter: AdapterReport) -> Iterator[str]:
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
