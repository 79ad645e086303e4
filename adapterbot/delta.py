"""Paired results become deltas: same samples, both adapters, one difference per sample.

`compare` takes two bare arrays, for those who script it; `compare_all` takes what an evaluation
returns and pairs it by sample id. Pure: equal content gives equal digits, whatever the order of
rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from adapterbot.errors import InputError
from adapterbot.paired import LEVEL, RESAMPLES, Metric, Paired, pair, pair_corpus
from adapterbot.records import Direction, MetricDelta, SampleScore, ScoreKind, TaskResult, Unit
from adapterbot.stats.corpus import Aggregate
from adapterbot.stats.distributions import FloatArray

__all__ = ["Corpus", "compare", "compare_all"]

_Kind = TypeVar("_Kind", bound=StrEnum)


def compare(
    baseline: ArrayLike,
    candidate: ArrayLike,
    *,
    direction: Direction | str,
    margin: float,
    clusters: Sequence[Hashable] | ArrayLike | None = None,
    kind: ScoreKind | str | None = None,
    level: float = LEVEL,
    task: str = "metric",
    slice: str | None = None,  # noqa: A002 - the record's field
    scorer: str = "score",
    unit: Unit | str = Unit.FRACTION,
    resamples: int = RESAMPLES,
) -> MetricDelta:
    """Compare the scores of two adapters on the same samples.

    Args:
        baseline: one score per sample, NaN where there is none; shape (n,). Lists, arrays (what a
            masked one masks counts as NaN), tensors and series alike.
        candidate: the same of the candidate, in the same order.
        direction: whether `higher` or `lower` scores are better.
        margin: the harm to rule out, 0 or more, in the metric's units; sets `samples_needed`.
        clusters: a label per sample; samples with one label are not independent.
        kind: `binary` insists on 0/1 scores; None means binary exactly if all are 0 or 1.
        level: of the two-sided interval of the change; 1 − level is the level of `harm_low`,
            `harm_high` and `min_detectable`, each one-sided and not adjusted for other metrics.
        resamples: bootstrap resamples, and random sign patterns.

    Raises:
        InputError: the arrays hold something else than numbers or do not pair up, a sample lacks
            its label, the scores contradict `kind`, or another argument is out of its range.
    """
    if not 0 < level < 1:
        raise InputError(f"is {level}", field="level", fix="write 0.95 for 95 %")
    if not margin >= 0:
        raise InputError(f"is {margin}", field="margin", fix="write a harm, 0 or more")
    if resamples < 1:
        raise InputError(f"is {resamples}", field="resamples", fix="write 1 or more")
    metric = Metric(
        task=task,
        direction=_one_of(Direction, "direction", direction),
        unit=_one_of(Unit, "unit", unit),
        scorer=scorer,
        slice=slice,
        kind=None if kind is None else _one_of(ScoreKind, "kind", kind),
    )
    found = pair(metric, baseline, candidate, clusters=clusters, level=level, resamples=resamples)
    return _against(found, margin, 1 - level)


def _one_of(kinds: type[_Kind], argument: str, value: str) -> _Kind:
    try:
        return kinds(value)
    except ValueError:
        raise InputError(
            f"is {value!r}", field=argument, fix=f"write one of: {', '.join(kinds)}"
        ) from None


def _against(found: Paired, margin: float, alpha: float) -> MetricDelta:
    """The delta, with the samples it would take where neither bound settles it."""
    low, high = found.bounds(alpha) or (math.inf, -math.inf)
    if low > 0 or high < margin:
        return found.delta
    needed = found.samples_to_settle(
        margin=margin, least_effect=0.0, alpha=alpha, alpha_worse=alpha
    )
    return found.delta.model_copy(update={"samples_needed": needed})


# ---------------------------------------------------------------- results of an evaluation


@dataclass(frozen=True)
class Corpus:
    """What makes a task's metric one of the whole corpus.

    Attributes:
        aggregate: the metric of corpora from their summed statistics, (…, k) to (…).
        stats: the k additive statistics of one scored sample.
    """

    aggregate: Aggregate
    stats: Callable[[SampleScore], Sequence[float]]

    def table(self, samples: Sequence[SampleScore | None]) -> FloatArray:
        """Shape (n, k), with a row of NaN where a sample has no score.

        Raises:
            InputError: the samples have different numbers of statistics.
        """
        rows = [self.stats(s) if s is not None and s.score is not None else None for s in samples]
        widths = {len(row) for row in rows if row is not None}
        if len(widths) > 1:
            raise InputError("samples have different numbers of statistics")
        nothing = [math.nan] * (widths.pop() if widths else 1)
        whole = [nothing if row is None else row for row in rows]
        return np.array(whole).reshape(len(rows), len(nothing))


def compare_all(
    baseline: Sequence[TaskResult],
    candidate: Sequence[TaskResult],
    *,
    corpora: Mapping[str, Corpus] | None = None,
    resamples: int = RESAMPLES,
) -> tuple[Paired, ...]:
    """Every task of a suite under both adapters, for `verdict.judge`.

    Args:
        corpora: the tasks whose metric is not the mean of their samples' scores.

    Raises:
        InputError: the two sides are not results of the same tasks.
    """
    after = {result.task: result for result in candidate}
    if sorted(result.task for result in baseline) != sorted(result.task for result in candidate):
        raise InputError("baseline and candidate were not evaluated on the same tasks")
    return tuple(
        found
        for result in baseline
        for found in _task(result, after[result.task], (corpora or {}).get(result.task), resamples)
    )


def _task(
    baseline: TaskResult, candidate: TaskResult, corpus: Corpus | None, resamples: int
) -> list[Paired]:
    described = [(r.scorer, r.direction, r.kind, r.unit) for r in (baseline, candidate)]
    if described[0] != described[1]:
        raise InputError(
            "baseline and candidate were scored in different ways", field=baseline.task
        )
    rows = _rows(baseline, candidate)
    slices = sorted({row.slice for row in rows if row.slice is not None})
    found = []
    for name in (None, *slices):
        chosen = [row for row in rows if name is None or row.slice == name]
        metric = Metric.of(baseline, name)
        clusters = [row.cluster for row in chosen]
        before, after = [row.baseline for row in chosen], [row.candidate for row in chosen]
        if corpus is None:
            paired = pair(
                metric,
                [score_of(sample) for sample in before],
                [score_of(sample) for sample in after],
                clusters=clusters,
                resamples=resamples,
            )
        else:
            # One table: a side without a single score does not know how wide it is.
            table = corpus.table([*before, *after])
            paired = pair_corpus(
                metric,
                table[: len(before)],
                table[len(before) :],
                corpus.aggregate,
                clusters=clusters,
                resamples=resamples,
            )
        found.append(paired)
    return found


@dataclass(frozen=True)
class _Row:
    """One sample under both adapters; None where a side lacks it."""

    baseline: SampleScore | None
    candidate: SampleScore | None
    slice: str | None
    cluster: Hashable


def _rows(baseline: TaskResult, candidate: TaskResult) -> list[_Row]:
    """Samples of either side, by id. One that a side lacks stays, without a score there."""
    before, after = _by_id(baseline), _by_id(candidate)
    # Slice and cluster are the suite's, so either side knows them.
    known = {**after, **before}
    return [
        _Row(
            baseline=before.get(name),
            candidate=after.get(name),
            slice=known[name].slice,
            cluster=cluster_of(known[name]),
        )
        for name in sorted(known)
    ]


def _by_id(result: TaskResult) -> dict[str, SampleScore]:
    samples = {sample.sample_id: sample for sample in result.samples}
    if len(samples) != len(result.samples):
        raise InputError("two samples have the same id", field=result.task)
    return samples


def score_of(sample: SampleScore | None) -> float:
    """A sample's score; NaN where there is none."""
    return math.nan if sample is None or sample.score is None else sample.score


def cluster_of(sample: SampleScore) -> Hashable:
    """The cluster that a sample is in; one without any is in one of its own."""
    return sample.cluster, None if sample.cluster else sample.sample_id
