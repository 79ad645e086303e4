"""How a mixture shared the answers out among its experts, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.pages.figures import Scale
from adapterbot.pages.inert import Inert
from adapterbot.records import ExpertShare, TaskRouting, Unit

# With 64 experts most have next to nothing of a task.
MOST_EXPERTS = 6
_SCALE = Scale(Unit.FRACTION, 1)


@dataclass(frozen=True)
class ShareRow:
    """One expert's share of a task's answers; those of `others` together where `expert` is None."""

    task: str
    expert: str | None
    others: int
    baseline: Inert
    candidate: Inert
    change: Inert


def share_rows(routing: Sequence[TaskRouting]) -> tuple[ShareRow, ...]:
    """The rows of every task: its largest experts on either side, then the others in one row."""
    return tuple(row for task in routing for row in _rows(task))


def _rows(task: TaskRouting) -> list[ShareRow]:
    ranked = sorted(task.experts, key=lambda share: -max(_known(share)))
    shown, others = ranked[:MOST_EXPERTS], ranked[MOST_EXPERTS:]
    rows = [_row(task.task, share.expert, 0, share.baseline, share.candidate) for share in shown]
    if others:
        baseline, candidate = (
            sum(known) if (known := [value for value in side if value is not None]) else None
            for side in zip(*((one.baseline, one.candidate) for one in others), strict=True)
        )
        rows.append(_row(task.task, None, len(others), baseline, candidate))
    return rows


def _row(
    task: str, expert: str | None, others: int, baseline: float | None, candidate: float | None
) -> ShareRow:
    change = None if baseline is None or candidate is None else candidate - baseline
    return ShareRow(
        task=task,
        expert=expert,
        others=others,
        baseline=_SCALE.level(baseline),
        candidate=_SCALE.level(candidate),
        change=_SCALE.change(change),
    )


def _known(share: ExpertShare) -> list[float]:
    return [value for value in (share.baseline, share.candidate) if value is not None]
