"""Runs a bisection over checkpoints: asks, probes, tells, and reports what came out.

It is given a judge of single checkpoints and knows nothing of how one is evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from adapterbot.bisect.archive import Checkpoint
from adapterbot.bisect.bisection import Answer, Bisection
from adapterbot.records import BisectResult, BisectVerdict, Probe, ProbeOutcome

Judge = Callable[[Checkpoint], tuple[Answer, str]]
"""Good, bad or skipped, and the figures behind it in a few words."""


def run(
    checkpoints: Sequence[Checkpoint],
    judge: Judge,
    *,
    metrics: Sequence[str],
    known: Mapping[int, tuple[Answer, str]] | None = None,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[str], None] = lambda _: None,
) -> BisectResult:
    """Find the first bad checkpoint.

    Args:
        checkpoints: oldest first.
        judge: evaluates one checkpoint.
        metrics: what is being bisected, for the report.
        known: answers that were measured already, by index; they cost nothing.
    """
    search = Bisection(len(checkpoints))
    probes: list[Probe] = []

    def record(index: int, answer: Answer, detail: str, seconds: float) -> None:
        search.tell(index, answer)
        probes.append(
            Probe(
                index=index,
                label=checkpoints[index].label,
                outcome=ProbeOutcome(answer.value),
                seconds=round(seconds, 3),
                detail=detail,
            )
        )

    for index, (answer, detail) in sorted((known or {}).items()):
        record(index, answer, detail, 0.0)
    while (asked := search.ask()) is not None:
        started = clock()
        answer, detail = judge(checkpoints[asked])
        record(asked, answer, detail, clock() - started)
        progress(f"{checkpoints[asked].label}: {answer} ({detail})")
    return _result(search, checkpoints, probes, metrics)


def _result(
    search: Bisection,
    checkpoints: Sequence[Checkpoint],
    probes: Sequence[Probe],
    metrics: Sequence[str],
) -> BisectResult:
    suspects = [checkpoints[index].label for index in search.first_bad]
    last_good = checkpoints[search.good].label if search.good >= 0 else None
    if not suspects:
        whole = search.good == len(checkpoints) - 1
        verdict = BisectVerdict.ALL_OK if whole else BisectVerdict.NOT_RUN
    elif len(suspects) > 1:
        verdict = BisectVerdict.BROKEN_WITHIN
    else:
        verdict = BisectVerdict.BROKEN_AT
    exact = len(suspects) == 1
    return BisectResult(
        verdict=verdict,
        metrics=tuple(metrics),
        checkpoints=len(checkpoints),
        first_broken=suspects[0] if exact else None,
        last_good=last_good,
        candidates=tuple(suspects),
        probes=tuple(probes),
        note=_note(suspects, last_good, probes, verdict),
    )


def _note(
    suspects: Sequence[str],
    last_good: str | None,
    probes: Sequence[Probe],
    verdict: BisectVerdict,
) -> str:
    if verdict is BisectVerdict.NOT_RUN:
        reason = next((p.detail for p in probes if p.outcome is ProbeOutcome.SKIPPED), "")
        return f"the newest checkpoints could not be evaluated: {reason}"[:1000]
    if len(suspects) > 1:
        return "some of these checkpoints could not be evaluated"
    if suspects and last_good is None:
        return "the oldest checkpoint is broken already"
    return ""
