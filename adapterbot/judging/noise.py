"""The A/A self-check: what the engine itself makes of one and the same adapter.

bf16 and batching change the last digits of a logit, and now and then an answer. The baseline is
asked some samples again, in batches of another composition and with nothing from the cache: what
differs is noise, and no verdict should rest on less. It is shown and decides nothing; the paired
differences hold the same noise already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapterbot.eval.questions import Subject
from adapterbot.eval.suite import Selection, Task
from adapterbot.probing.evaluator import Evaluator
from adapterbot.records import NoiseFloor, TaskResult, Unit


def measure(
    evaluator: Evaluator,
    tasks: Sequence[Task],
    adapter: Subject | None,
    before: Sequence[TaskResult],
    count: int,
    progress: Callable[[int, int], None] | None = None,
) -> NoiseFloor:
    """Ask an adapter again what it has answered in `before`.

    Args:
        count: how many samples to ask; never more than half of those in `before`, so that the
            batches cannot be the same.
    """
    chosen = _chosen(tasks, before, count)
    again = evaluator.evaluate(tasks, adapter, samples=chosen, afresh=True, progress=progress)
    return compare(before, again)


def compare(before: Sequence[TaskResult], again: Sequence[TaskResult]) -> NoiseFloor:
    """What differs between two evaluations of one adapter, over the samples of the second."""
    answers = scores = samples = 0
    shifts: list[tuple[Unit, float, str, int]] = []
    for first, second in zip(before, again, strict=True):
        known = {sample.sample_id: sample for sample in first.samples}
        moved: list[float] = []
        for sample in second.samples:
            other = known[sample.sample_id]
            samples += 1
            answers += sample.output != other.output
            scores += sample.score != other.score
            if sample.score is not None and other.score is not None:
                moved.append(sample.score - other.score)
        if any(moved):
            shifts.append((first.unit, abs(sum(moved)) / len(moved), first.task, len(moved)))
    # Fractions first: a figure in points means the same on every task.
    worst = max(shifts, key=lambda s: (s[0] is Unit.FRACTION, s[1]), default=None)
    found = NoiseFloor(samples=samples, answers=answers, scores=scores)
    if worst is None or worst[1] == 0:
        return found
    unit, shift, task, asked = worst
    return found.model_copy(update={"task": task, "unit": unit, "shift": shift, "asked": asked})


def _chosen(tasks: Sequence[Task], before: Sequence[TaskResult], count: int) -> Selection:
    """Samples by the digests of their names, so always the same ones, from all tasks alike."""
    everything = sorted(
        (task.lot(sample.sample_id), task.name, sample.sample_id)
        for task, result in zip(tasks, before, strict=True)
        for sample in result.samples
    )
    chosen: dict[str, list[str]] = {}
    for _, task_name, sample_id in everything[: min(count, len(everything) // 2)]:
        chosen.setdefault(task_name, []).append(sample_id)
    return chosen
