"""What changed from the last good checkpoint to the first bad one: rows, weights and answers.

A look back once the search is over. What cannot be found out becomes a note, and takes nothing away
from the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from adapterbot.bisect import Checkpoint
from adapterbot.differing import differing_samples
from adapterbot.errors import AdapterbotError
from adapterbot.importing import extras
from adapterbot.lock.rows import dataset_diff
from adapterbot.probing.archive_data import EXAMPLES, added_rows
from adapterbot.probing.blame import Blame, Ranked
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import (
    Between,
    BisectResult,
    LayerChange,
    SampleDiff,
    SampleScore,
    TaskResult,
)

MOST_LAYERS = 8
MOST_SAMPLES = 6

Value = TypeVar("Value")


@dataclass(frozen=True)
class Asked:
    """What the search asked: `good` are the answers of the good end, `answers` those of each
    checkpoint by its index."""

    good: Sequence[TaskResult]
    answers: Mapping[int, Sequence[TaskResult]]


def what_changed(
    run: TrainingRun, found: BisectResult, asked: Asked, blame: Blame | None = None
) -> Between | None:
    """The change between the two; None where nothing broke, or the oldest is broken already.

    Args:
        found: what the search ended with.
        blame: ranks the rows that came in between.
    """
    ends = _ends(run.checkpoints, found)
    if ends is None:
        return None
    good, bad = (run.checkpoints[index] for index in ends)
    notes: list[str] = []

    def told(look: Callable[[], Value]) -> Value | None:
        try:
            return look()
        except AdapterbotError as error:
            notes.append(str(error)[:1000])
            return None

    sides = told(lambda: run.rows_between(good, bad))
    rows = told(lambda: dataset_diff(*sides, examples=EXAMPLES)) if sides else None
    layers = told(lambda: _layers(run, good, bad)) or ()
    worse, count = _worse(asked, *ends)
    ranked = None
    if blame and sides:
        samples = _broken(asked, ends[1], worse)

        def rank() -> Ranked:
            with run.adapters(good, bad) as adapters:
                return blame.rank(added_rows(*sides), samples, adapters)

        ranked = told(rank)
    if ranked and ranked.unread:
        notes.append(f"{ranked.unread:,} rows are in no format that we read, and were not ranked")
    return Between(
        data=rows,
        layers=layers[:MOST_LAYERS],
        layers_compared=len(layers),
        worse=worse[:MOST_SAMPLES],
        samples_worse=len(worse),
        samples_asked=count,
        blame=ranked.rows if ranked else (),
        rows_ranked=ranked.count if ranked else 0,
        notes=tuple(notes),
    )


def what_changed_in_the_data(run: TrainingRun, found: BisectResult) -> Between | None:
    """As `what_changed` where a command judged, whose checkpoints may be anything: the rows alone,
    and None where nothing says which they are."""
    ends = _ends(run.checkpoints, found)
    if ends is None:
        return None
    try:
        sides = run.rows_between(*(run.checkpoints[index] for index in ends))
        return Between(data=dataset_diff(*sides, examples=EXAMPLES)) if sides else None
    except AdapterbotError as error:
        return Between(notes=(str(error)[:1000],))


def _ends(checkpoints: Sequence[Checkpoint], found: BisectResult) -> tuple[int, int] | None:
    """The indices of the last good checkpoint and of the first bad one, where both are named."""
    if found.first_broken is None or found.last_good is None or not found.suspicions:
        return None
    # Of a great many suspects only the likeliest are listed, and the oldest may not be one of them.
    before = range(min(one.index for one in found.suspicions) - 1, -1, -1)
    good = next((i for i in before if checkpoints[i].label == found.last_good), None)
    return None if good is None else (good, found.suspicions[0].index)


def _layers(run: TrainingRun, good: Checkpoint, bad: Checkpoint) -> tuple[LayerChange, ...]:
    with extras("eval", "comparing weights"):  # a server evaluates where there is no torch
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.inspection import layer_changes
    with run.adapters(good, bad) as adapters:
        return layer_changes(*map(open_adapter, adapters))


def _broken(asked: Asked, first_bad: int, worse: Sequence[SampleDiff]) -> list[SampleDiff]:
    """Samples that show what broke: those that got worse at the first bad checkpoint, then others
    that later ones answer worse. A search asks one checkpoint few samples."""
    found = {(sample.task, sample.sample_id): sample for sample in worse}
    for index in sorted(asked.answers):
        if index > first_bad:
            for sample in _harmed(asked.good, _whole(asked.answers[index])):
                if (sample.harm or 0.0) > 0:
                    found.setdefault((sample.task, sample.sample_id), sample)
    return list(found.values())


def _worse(asked: Asked, last_good: int, first_bad: int) -> tuple[tuple[SampleDiff, ...], int]:
    """The samples whose answer at the first bad checkpoint is worse than the good end's, most
    harmful first, and how many it was asked. Those that were as bad before are left out."""
    found = _whole(asked.answers.get(first_bad, ()))
    before = {
        (sample.task, sample.sample_id): sample.harm or 0.0
        for sample in _harmed(asked.good, _whole(asked.answers.get(last_good, ())))
    }
    worse = tuple(
        sample
        for sample in _harmed(asked.good, found)
        if (sample.harm or 0.0) > before.get((sample.task, sample.sample_id), 0.0)
    )
    return worse, sum(len(result.samples) for result in found.values())


def _whole(results: Sequence[TaskResult]) -> dict[str, TaskResult]:
    """The chunks of each task as one result."""
    tasks = {result.task: result for result in results}
    samples: dict[str, dict[str, SampleScore]] = {name: {} for name in tasks}
    for result in results:
        samples[result.task] |= {sample.sample_id: sample for sample in result.samples}
    return {
        name: result.model_copy(update={"samples": tuple(samples[name].values())})
        for name, result in tasks.items()
    }


def _harmed(good: Sequence[TaskResult], found: Mapping[str, TaskResult]) -> tuple[SampleDiff, ...]:
    before = [result for result in good if result.task in found]
    return differing_samples(before, [found[result.task] for result in before])
