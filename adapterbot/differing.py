"""Both sides' answers to the same samples, and those that differ, most worth a look first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from adapterbot.records import SampleDiff, TaskResult


class Pair(NamedTuple):
    """One sample under both adapters. `changed` compares the whole answers; a diff holds no more of
    each than its bound."""

    diff: SampleDiff
    changed: bool


def pairs(before: Sequence[TaskResult], after: Sequence[TaskResult]) -> Iterator[Pair]:
    """Every sample that both sides have, in suite order.

    Raises:
        ValueError: the two do not hold the same number of tasks.
    """
    for left, right in zip(before, after, strict=True):
        baseline = {sample.sample_id: sample for sample in left.samples}
        for sample in right.samples:
            other = baseline.get(sample.sample_id)
            if other is None:
                continue
            harm: float | None = None
            if other.score is not None and sample.score is not None:
                worse = left.direction.worse
                harm = worse * sample.score - worse * other.score  # never −0.0
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
            yield Pair(diff, other.output != sample.output or other.score != sample.score)


def worst_first(found: Iterable[Pair], *, first: Collection[str] = ()) -> list[Pair]:
    """What changed before what did not; of that the tasks in `first`, then the most harmful, then
    in the order in which they came."""

    def place(pair: Pair) -> tuple[bool, bool, float]:
        return not pair.changed, pair.diff.task not in first, -(pair.diff.harm or 0.0)

    return sorted(found, key=place)


def differing_samples(
    before: Sequence[TaskResult], after: Sequence[TaskResult], *, first: Collection[str] = ()
) -> tuple[SampleDiff, ...]:
    """The samples whose answer or score changed, the worst first."""
    changed = (pair for pair in pairs(before, after) if pair.changed)
    return tuple(pair.diff for pair in worst_first(changed, first=first))
