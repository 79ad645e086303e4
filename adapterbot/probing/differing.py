"""The samples that two adapters answer differently, most worth a look first."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapterbot.records import SampleDiff, TaskResult


def differing_samples(
    before: Sequence[TaskResult], after: Sequence[TaskResult], *, first: Collection[str] = ()
) -> tuple[SampleDiff, ...]:
    """Samples whose answer or score changed: those of the tasks in `first`, then the most harmful,
    then in suite order."""
    found: list[tuple[bool, float, int, SampleDiff]] = []
    for left, right in zip(before, after, strict=True):
        baseline = {sample.sample_id: sample for sample in left.samples}
        for sample in right.samples:
            other = baseline.get(sample.sample_id)
            if other is None or (other.output == sample.output and other.score == sample.score):
                continue
            harm: float | None = None
            if other.score is not None and sample.score is not None:
                harm = other.score - sample.score
                harm = harm if left.direction == "higher" else -harm
            diff = SampleDiff(
                task=left.task,
                sample_id=sample.sample_id,
                slice=sample.slice,
                prompt=sample.prompt,
                expected=sample.expected,
                baseline_output=other.output,
                candidate_output=sample.output,
                baseline_score=other.score,
                candidate_score=sample.score,
                harm=harm,
            )
            found.append((left.task not in first, -(harm or 0.0), len(found), diff))
    return tuple(diff for *_, diff in sorted(found, key=lambda item: item[:3]))
