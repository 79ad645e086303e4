"""What a run leaves on disk: the report, and the documents made of it. And reading one back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from adapterbot import atomic, render
from adapterbot.errors import ExitCode, InputError
from adapterbot.records import Comparison, Outcome, Report
from adapterbot.render import Links

MAX_REPORT_BYTES = 16 * 1024 * 1024
NO_LINKS = Links()


@dataclass(frozen=True)
class Written:
    """What a run left behind."""

    report: Report
    report_path: Path
    comment_paths: tuple[Path, ...]
    summary_path: Path
    html_path: Path


def write(report: Report, directory: Path, links: Links = NO_LINKS) -> Written:
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
        atomic.write_text(path, render.comment(report, adapter, links=links))
    written = Written(
        report=report,
        report_path=directory / "report.json",
        comment_paths=tuple(comments),
        summary_path=directory / "summary.md",
        html_path=directory / "comment.html",
    )
    atomic.write_text(written.report_path, render.json_text(report))
    atomic.write_text(written.summary_path, render.summary(report, links=links))
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


def read_report(path: Path) -> Report:
    """Read report.json, bounded and validated.

    Raises:
        InputError: missing, too large, or not what our schema says.
    """
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise InputError(f"is larger than {MAX_REPORT_BYTES:,} bytes", file=path.name, fix=_FIX)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            "is not there: the job that evaluates left no report",
            file=path.name,
            fix="see that job's log",
        ) from error
    return parse_report(content, path.name)


_FIX = "pass the report.json that `adapterbot gate` wrote"


def parse_report(content: bytes, name: str) -> Report:
    """A report from its bytes, which a stranger may have written.

    Raises:
        InputError: not what our schema says.
    """
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(
            first["msg"].lower(),
            file=name,
            field=".".join(str(part) for part in first["loc"]) or None,
            fix=_FIX,
        ) from error
