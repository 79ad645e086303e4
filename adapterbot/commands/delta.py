"""`adapterbot delta`: two saved results, compared and judged as the gate would."""

from __future__ import annotations

import os
from pathlib import Path

from adapterbot import TOOL, delta, verdict
from adapterbot.commands.folders import out_directory
from adapterbot.commands.report_files import Written, write
from adapterbot.config import key_of
from adapterbot.differing import differing_samples
from adapterbot.errors import InputError
from adapterbot.eval.saved import load_results
from adapterbot.overall import weighted_change
from adapterbot.pipeline import MAX_SHOWN_SAMPLES
from adapterbot.probing.evaluator import corpora
from adapterbot.records import (
    AdapterReport,
    Report,
    SavedResults,
    Source,
    Standing,
)


def run(baseline: Path, candidate: Path, *, alpha: float, out: Path | None) -> Written:
    """Compare two files of `adapterbot eval`, judge by the policy that the candidate's suite had,
    and write the report.

    Args:
        alpha: the chance of calling anything regressed if nothing changed.
        out: folder for the report; None is `delta/` beside the report of the gate.

    Raises:
        InputError: a file is not one of ours, or the two were asked different questions.
    """
    before, left = load_results(baseline)
    after, right = load_results(candidate)
    if why := _difference(before, after):
        fix = "evaluate both adapters with the same suite"
        raise InputError(why, file=str(candidate), fix=fix)
    by_name = {result.task: result for result in right}
    right = tuple(by_name[result.task] for result in left)
    metrics, outcome = verdict.judge(
        delta.compare_all(left, right, corpora=corpora(after.tasks)),
        verdict.policies(after.tasks, {}),
        alpha=alpha,
    )
    broken = {m.delta.task for m in metrics if m.standing is Standing.REGRESSED}
    changed = differing_samples(left, right, first=broken)
    report = AdapterReport(
        key=key_of(after.adapter.path or after.adapter.label),
        adapter=after.adapter.path or after.adapter.label,
        base_model=after.base_model,
        baseline=before.adapter,
        candidate=after.adapter,
        verdict=outcome,
        metrics=metrics,
        samples=changed[:MAX_SHOWN_SAMPLES],
        samples_changed=len(changed),
        notes=weighted_change(metrics, after.tasks),
    )
    whole = Report(tool=TOOL, source=Source(), adapters=(report,))
    # What a gate left is not written over: `explain` and `report` speak of that.
    directory = out_directory(out, os.environ)
    return write(whole, directory if out else directory / "delta")


def _difference(before: SavedResults, after: SavedResults) -> str | None:
    """What the candidate was asked that the baseline was not, or the other way round."""
    asked = {task.name: task.digest for task in before.tasks}
    for task in after.tasks:
        if task.name not in asked:
            return f"has the task {task.name!r}, which the baseline was not asked"
        if asked.pop(task.name) != task.digest:
            return f"was asked another {task.name!r} than the baseline (data, scorer or generation)"
    return f"lacks the task {min(asked)!r}, which the baseline was asked" if asked else None
