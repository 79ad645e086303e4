"""What a run tells the runner: outputs, the job summary, and annotations."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from adapterbot import TOOL
from adapterbot.commands.notes import notes
from adapterbot.commands.report_files import Written, write
from adapterbot.context import Context
from adapterbot.gh import workflow
from adapterbot.records import LockStatus, Outcome, Report

_WORST_FIRST = (
    Outcome.NOT_JUDGED,
    Outcome.REGRESSED,
    Outcome.DRIFT,
    Outcome.INCONCLUSIVE,
    Outcome.PASSED,
)
_LOCKS_WORST_FIRST = (LockStatus.DRIFT, LockStatus.MISSING, LockStatus.OK)


def announce(
    written: Written,
    comments: Mapping[str, str],
    environment: Mapping[str, str],
    *,
    annotate: bool = True,
) -> None:
    """Outputs, job summary and annotations, where a runner reads them.

    Args:
        comments: key → URL.
        annotate: False where a check run has put the findings on their lines already.

    Raises:
        OurFailure: a file of the runner's cannot be written.
    """
    report = written.report
    if environment.get("GITHUB_OUTPUT"):
        workflow.write_outputs(
            Path(environment["GITHUB_OUTPUT"]),
            {
                **outputs(report, comments),
                "report-path": str(written.report_path),
                "page-path": str(written.page_path),
            },
        )
    if annotate and environment.get("GITHUB_ACTIONS") == "true":
        for adapter in report.adapters:
            for note in notes(adapter):
                sys.stderr.write(f"{workflow.annotation(note)}\n")
    # Last: the steps that follow do without it.
    if environment.get("GITHUB_STEP_SUMMARY"):
        summary = written.summary_path.read_text(encoding="utf-8")
        workflow.append_summary(Path(environment["GITHUB_STEP_SUMMARY"]), summary)


def announce_nothing(context: Context, directory: Path, environment: Mapping[str, str]) -> Written:
    """A run with nothing to do leaves a report without adapters, and outputs that say so.

    Raises:
        AdapterbotError: the directory cannot be written.
    """
    report = Report(tool=TOOL, source=context.source(), adapters=())
    written = write(report, directory)
    announce(written, {}, environment)
    return written


def outputs(report: Report, comments: Mapping[str, str]) -> dict[str, str]:
    """The action's outputs; with several adapters, the worst value of each."""
    ranked = sorted(report.adapters, key=lambda one: _WORST_FIRST.index(one.verdict.outcome))
    locks = [adapter.lock.status for adapter in report.adapters if adapter.lock]
    broken = [a.bisect.first_broken for a in ranked if a.bisect and a.bisect.first_broken]
    return {
        "verdict": ranked[0].verdict.outcome.value if ranked else "unchanged",
        "lock-status": min(locks, key=_LOCKS_WORST_FIRST.index).value if locks else "",
        "first-bad-checkpoint": broken[0] if broken else "",
        "comment-url": comments.get(ranked[0].key, "") if ranked else "",
    }
