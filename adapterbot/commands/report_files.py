"""What a run leaves on disk: its report, and documents made from it; and how one is read back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from adapterbot import render
from adapterbot.commands.report_size import MAX_REPORT_BYTES, within
from adapterbot.differing import Pair, pairs
from adapterbot.errors import ExitCode, InputError
from adapterbot.eval.saved import load_results
from adapterbot.files import atomic, validation
from adapterbot.files.named import read_named
from adapterbot.records import AdapterReport, Comparison, Outcome, Report
from adapterbot.records.merge import MergeRecord
from adapterbot.records.routes import Routes
from adapterbot.render import Links
from adapterbot.report import Beside, html

REPORT = "report.json"
PAGE = "report.html"
RESULTS = "results"
NO_LINKS = Links()
_FIX = "pass the report.json that `adapterbot gate` wrote"


@dataclass(frozen=True)
class Written:
    """What a run left behind."""

    report: Report
    report_path: Path
    comment_paths: tuple[Path, ...]
    summary_path: Path
    page_path: Path


def write(report: Report, directory: Path, links: Links = NO_LINKS) -> Written:
    """report.json, report.html, summary.md, and comment.md (one per adapter when several): all of
    them, or none. The report is cut to what `read_report` takes.

    Raises:
        AdapterbotError: the directory cannot be written, or holds results that cannot be read; or
            the report is larger, cut as it may be.
    """
    report = within(report)
    several = len(report.adapters) > 1
    comments = {
        directory / (f"comment-{adapter.key}.md" if several else "comment.md"): adapter
        for adapter in report.adapters
    }
    written = Written(
        report=report,
        report_path=directory / REPORT,
        comment_paths=tuple(comments),
        summary_path=directory / "summary.md",
        page_path=directory / PAGE,
    )
    texts = {
        path: render.comment(report, adapter, links=links) for path, adapter in comments.items()
    }
    texts[written.report_path] = render.json_text(report)
    texts[written.summary_path] = render.summary(report, links=links)
    texts[written.page_path] = page_of(report, directory)
    atomic.write_all({path: text.encode() for path, text in texts.items()})
    return written


def results_path(directory: Path, key: str, side: str) -> Path:
    """Where every sample of one side (`baseline` or `candidate`) of an adapter is kept."""
    return directory / RESULTS / f"{key}.{side}.jsonl"


def page_of(
    report: Report,
    directory: Path,
    *,
    merge: MergeRecord | None = None,
    routes: Routes | None = None,
) -> str:
    """report.html, with every sample that the results in `directory` hold.

    Raises:
        InputError: results are there and cannot be read.
    """
    samples = partial(_samples, directory)
    return html(report, Beside(samples=samples, merge=merge, routes=routes))


def _samples(directory: Path, adapter: AdapterReport) -> list[Pair] | None:
    """Every sample of an adapter; None where no results are its own.

    A folder may still hold those of an earlier run, which were of other weights. Those beside an
    adapter that was not judged are never its own, and not read: another version may have written
    them.
    """
    if adapter.baseline is None or adapter.candidate is None:
        return None
    sides = {"baseline": adapter.baseline, "candidate": adapter.candidate}
    paths = {side: results_path(directory, adapter.key, side) for side in sides}
    if not all(path.is_file() for path in paths.values()):
        return None
    loaded = {side: load_results(path) for side, path in paths.items()}
    if any(head.adapter != sides[side] for side, (head, _) in loaded.items()):
        return None
    (before, first), (after, second) = loaded["baseline"], loaded["candidate"]
    return list(pairs(first, second)) if before.tasks == after.tasks else None


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
    if kinds & {"failure", "ended"} or ours:
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
        content = read_named(path, limit=MAX_REPORT_BYTES, fix=_FIX)
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise InputError(
            "is not there: the gate left no report",
            file=str(path),
            fix="run `adapterbot gate`, or see the log of the job that did",
        ) from error
    return parse_report(content, str(path))


def parse_report(content: bytes, name: str) -> Report:
    """A report from its bytes, which a stranger may have written.

    Raises:
        InputError: not what our schema says.
    """
    try:
        return Report.model_validate_json(content)
    except ValidationError as error:
        other = validation.of_another_version(content, file=name, fix="use one version for both")
        raise other or validation.bad_input(error, file=name, fix=_FIX) from error
