"""One number over all tasks, by the weights that a suite gives them. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapterbot.records import Direction, MetricVerdict, SavedTask, Unit


@dataclass(frozen=True)
class Mean:
    """A task's metric under one adapter, and what it counts."""

    value: float
    direction: Direction
    unit: Unit
    weight: float


def weighted(means: Iterable[Mean]) -> float | None:
    """Σ wᵢ·mᵢ / Σ wᵢ over the metrics that are fractions, all turned so that 1 is best.

    Returns: None where there are fewer than two: one metric needs no average, and seconds and
        fractions have none.
    """
    parts = [
        (m.weight, m.value if m.direction is Direction.HIGHER else 1.0 - m.value)
        for m in means
        if m.unit is Unit.FRACTION
    ]
    total = sum(weight for weight, _ in parts)
    if len(parts) < 2 or not total:
        return None
    return sum(weight * value for weight, value in parts) / total


def weights(tasks: Iterable[SavedTask]) -> Mapping[str, float]:
    """Each task's weight; nothing where all weigh the same and a table says as much."""
    found = {task.name: task.weight for task in tasks}
    return found if len(set(found.values())) > 1 else {}


def weighted_change(
    metrics: Sequence[MetricVerdict], tasks: Iterable[SavedTask]
) -> tuple[str, ...]:
    """The weighted score under both adapters in one line, where the suite weighs its tasks."""
    by_task = weights(tasks)
    sides: tuple[list[Mean], list[Mean]] = ([], [])
    for delta in (m.delta for m in metrics if m.delta.slice is None):
        # What one side lacks says nothing of the other either: both are of the same tasks.
        if delta.task in by_task and delta.baseline is not None and delta.candidate is not None:
            for side, value in zip(sides, (delta.baseline, delta.candidate), strict=True):
                side.append(Mean(value, delta.direction, delta.unit, by_task[delta.task]))
    before, after = map(weighted, sides)
    if before is None or after is None:
        return ()
    moved = f"{100 * (after - before):+.1f}".replace("-", "−")
    return (f"weighted score: {100 * before:.1f} % → {100 * after:.1f} % ({moved} points)",)
