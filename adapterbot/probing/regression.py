"""What a verdict says is worse, as a search of the history needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapterbot.eval.suite import Task
from adapterbot.records import MetricVerdict, Standing, TaskResult
from adapterbot.records.deltas import metric_name

Broken = tuple[str, str | None]
"""A task, and the slice of it that broke; None is the whole task."""


@dataclass(frozen=True)
class Regression:
    """What broke: the regressed metrics with the harm that the bad end shows on each, and both
    ends' results on them. Scores are not turned into pass or fail before they are weighed."""

    tasks: tuple[Task, ...]
    harms: Mapping[Broken, float]
    good: tuple[TaskResult, ...]
    bad: tuple[TaskResult, ...]

    @classmethod
    def of(
        cls,
        tasks: Sequence[Task],
        metrics: Sequence[MetricVerdict],
        good: Sequence[TaskResult],
        bad: Sequence[TaskResult],
    ) -> Regression:
        """The regressed metrics of a verdict. One that misses its threshold without being worse
        than the good end has no history to search."""
        harms = {
            (m.delta.task, m.delta.slice): m.delta.harm
            for m in metrics
            if m.standing is Standing.REGRESSED and m.delta.harm is not None and m.delta.harm > 0
        }
        names = {task for task, _ in harms}
        return cls(
            tasks=tuple(task for task in tasks if task.name in names),
            harms=harms,
            good=tuple(result for result in good if result.task in names),
            bad=tuple(result for result in bad if result.task in names),
        )

    def apart(self) -> list[Broken]:
        """The broken metrics without those that would count a sample twice: of a task and its
        slices the task, unless a slice shows it much more clearly."""
        chosen: list[Broken] = []
        for task in dict.fromkeys(name for name, _ in self.harms):
            slices = [key for key in self.harms if key[0] == task and key[1] is not None]
            whole = self.harms.get((task, None))
            clear = max((self.harms[key] for key in slices), default=0.0)
            chosen += [(task, None)] if whole is not None and clear < 1.5 * whole else slices
        return chosen

    @property
    def metrics(self) -> tuple[str, ...]:
        """The broken metrics as a reader knows them."""
        return tuple(sorted(metric_name(*broken) for broken in self.harms))
