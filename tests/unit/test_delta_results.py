"""Results of two evaluations are paired by sample id, and nothing is dropped without a word."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from adapterbot import delta
from adapterbot.errors import InputError
from adapterbot.paired import Metric, pair_corpus
from adapterbot.records import (
    Comparison,
    Direction,
    SampleScore,
    ScoreKind,
    TaskResult,
    Unit,
)


def result(scores, *, task: str = "dates", kind: ScoreKind = ScoreKind.BINARY, **fields):
    """A task's samples from (id, score, slice, cluster) rows; a score of None is missing."""
    return TaskResult(
        task=task,
        scorer=fields.pop("scorer", "exact"),
        direction=fields.pop("direction", Direction.HIGHER),
        kind=kind,
        samples=tuple(
            SampleScore(
                sample_id=name,
                score=score,
                missing="timed out" if score is None else None,
                slice=part,
                cluster=cluster,
            )
            for name, score, part, cluster in scores
        ),
        **fields,
    )


def compared(baseline: TaskResult, candidate: TaskResult, *, corpus=None, **given):
    """One task under both adapters: overall, then each slice by name."""
    corpora = {} if corpus is None else {baseline.task: corpus}
    paired = delta.compare_all([baseline], [candidate], corpora=corpora, **given)
    return tuple(found.delta for found in paired)


def rows(right: int, total: int = 40, *, clustered: bool = False):
    parts = [
        ("us" if i % 4 == 0 else "eu", f"d{i // 2}" if clustered else None) for i in range(total)
    ]
    return [(f"s{i:03}", float(i < right), *part) for i, part in enumerate(parts)]


def test_overall_first_then_each_slice_by_name() -> None:
    found = compared(result(rows(36)), result(rows(20)))
    assert [d.metric for d in found] == ["dates", "dates [eu]", "dates [us]"]
    assert [d.n for d in found] == [40, 30, 10]
    assert found[0].change == pytest.approx(-0.4)
    assert (found[0].scorer, found[0].unit) == ("exact", Unit.FRACTION)


def test_the_order_of_samples_changes_nothing() -> None:
    left, right = rows(36), rows(20)
    shuffled = random.Random(1).sample(right, len(right))
    assert compared(result(left), result(right)) == compared(result(left[::-1]), result(shuffled))


def test_a_missing_score_makes_its_slice_and_the_whole_incomplete() -> None:
    after = rows(20)
    after[4] = ("s004", None, "us", None)
    whole, eu, us = compared(result(rows(36)), result(after))
    assert whole.outcome is us.outcome is Comparison.INCOMPLETE
    assert eu.outcome is Comparison.COMPARED
    assert (whole.n, us.n) == (39, 9)
    assert whole.note == "1 of 40 samples have no score on at least one side"
    assert whole.change is not None


@pytest.mark.parametrize("shorter", ["baseline", "candidate"])
def test_a_sample_that_one_side_lacks_is_missing_not_dropped(shorter: str) -> None:
    sides = [result(rows(36)), result(rows(20))]
    index = 0 if shorter == "baseline" else 1
    sides[index] = sides[index].model_copy(update={"samples": sides[index].samples[:-3]})
    whole = compared(*sides)[0]
    assert whole.outcome is Comparison.INCOMPLETE
    assert whole.n == 37
    assert whole.note.startswith("3 of 40 samples")


def test_clusters_are_kept_together() -> None:
    loose, tight = (
        compared(result(rows(36, clustered=clustered)), result(rows(20, clustered=clustered)))[0]
        for clustered in (False, True)
    )
    assert loose.change == tight.change
    assert loose.p_worse is not None
    assert tight.p_worse is not None
    assert tight.p_worse > loose.p_worse


def test_a_sample_id_is_not_mistaken_for_a_cluster() -> None:
    samples = [(f"s{i}", float(i % 2), None, f"s{i + 1}" if i < 20 else None) for i in range(40)]
    changed = [(name, 1 - score, part, cluster) for name, score, part, cluster in samples[:15]]
    named = compared(result(samples), result(changed + samples[15:]))[0]
    plain = [(name, score, part, None) for name, score, part, _ in samples]
    changed = [(name, 1 - score, part, None) for name, score, part, _ in samples[:15]]
    assert named == compared(result(plain), result(changed + plain[15:]))[0]


def test_every_task_of_a_suite_in_the_order_of_the_baseline() -> None:
    before = [result(rows(30), task=task) for task in ("b", "a")]
    after = [result(rows(30), task=task) for task in ("a", "b")]
    found = delta.compare_all(before, after)
    assert [p.delta.metric for p in found] == ["b", "b [eu]", "b [us]", "a", "a [eu]", "a [us]"]
    assert all(p.delta.outcome is Comparison.IDENTICAL for p in found)


def test_different_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="not evaluated on the same tasks"):
        delta.compare_all([result(rows(3))], [result(rows(3), task="other")])
    with pytest.raises(InputError, match="not evaluated on the same tasks"):
        delta.compare_all([result(rows(3))] * 2, [result(rows(3))])


@pytest.mark.parametrize(
    "other",
    [
        {"direction": Direction.LOWER},
        {"scorer": "contains"},
        {"kind": ScoreKind.CONTINUOUS},
        {"unit": Unit.NUMBER},
    ],
)
def test_different_scoring_is_refused(other) -> None:
    with pytest.raises(InputError, match="scored in different ways"):
        compared(result(rows(3)), result(rows(3), **other))


def test_repeated_ids_are_refused() -> None:
    twice = result([("s", 1.0, None, None)] * 2)
    with pytest.raises(InputError, match="same id"):
        compared(twice, twice)


def test_an_empty_task_has_its_name() -> None:
    (found,) = compared(result([]), result([]))
    assert found.outcome is Comparison.EMPTY


# ---------------------------------------------------------------- corpus metrics


def perplexity(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))


def statistics(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tokens = np.random.default_rng(99).integers(5, 40, size=n).astype(float)
    return np.column_stack([tokens * rng.gamma(30, 0.05, size=n), tokens])


def corpus(before, after, **options):
    direction = Direction(options.pop("direction", "lower"))
    unit = Unit(options.pop("unit", "number"))
    metric = Metric(options.pop("task", "metric"), direction, unit)
    return pair_corpus(metric, before, after, perplexity, resamples=300, **options).delta


def test_a_corpus_metric_is_not_the_mean_of_its_samples() -> None:
    before, after = statistics(60, 1), statistics(60, 2) * [1.1, 1.0]
    found = corpus(before, after)
    assert found.baseline == pytest.approx(perplexity(before.sum(axis=0)))
    assert found.candidate == pytest.approx(perplexity(after.sum(axis=0)))
    assert found.change == pytest.approx(found.candidate - found.baseline)
    assert found.interval is not None
    assert found.interval.low < found.change < found.interval.high
    assert found.min_detectable is not None
    assert found.p_worse is not None
    assert found.p_worse < 0.05


@pytest.mark.parametrize("clustered", [False, True])
def test_swapping_the_sides_of_a_corpus_mirrors_every_digit(clustered: bool) -> None:
    before, after = statistics(45, 1), statistics(45, 2)
    labels = [i // 3 for i in range(45)] if clustered else None
    left, right = corpus(before, after, clusters=labels), corpus(after, before, clusters=labels)
    assert left.change == pytest.approx(-right.change)
    assert (left.p_worse, left.p_better) == (right.p_better, right.p_worse)
    assert left.interval is not None
    assert right.interval is not None
    assert left.interval.low == pytest.approx(-right.interval.high, rel=1e-12)
    assert left.interval.high == pytest.approx(-right.interval.low, rel=1e-12)
    other = corpus(before, after, clusters=labels, direction="higher")
    assert other.interval == left.interval
    assert (other.p_worse, other.harm_low) == (left.p_better, -left.harm_high)


def test_order_of_rows_of_a_corpus_changes_no_digit() -> None:
    before, after = statistics(45, 1), statistics(45, 2)
    order = np.random.default_rng(0).permutation(45)
    labels = np.arange(45) // 2
    assert corpus(before, after) == corpus(before[order], after[order])
    assert corpus(before, after, clusters=labels.tolist()) == corpus(
        before[order], after[order], clusters=labels[order].tolist()
    )


def test_equal_corpora_are_bounded_by_the_range_of_their_samples() -> None:
    before = statistics(50, 1)
    found = corpus(before, before)
    assert found.outcome is Comparison.IDENTICAL
    assert found.harm_high == pytest.approx(np.ptp(perplexity(before)) * (1 - 0.05 ** (1 / 50)))
    fraction = corpus(before, before, unit="fraction")
    assert fraction.harm_high == pytest.approx(1 - 0.05 ** (1 / 50))


def matthews(sums: np.ndarray) -> np.ndarray:
    """The correlation of two binary labels, from counts of the four pairs of them."""
    both, one, other, neither = np.moveaxis(sums, -1, 0)
    sides = (both + one) * (both + other) * (neither + one) * (neither + other)
    with np.errstate(invalid="ignore"):
        return np.asarray((both * neither - one * other) / np.sqrt(sides))


def test_equal_corpora_whose_metric_no_sample_has_by_itself() -> None:
    counts = np.eye(4)[np.random.default_rng(0).integers(0, 4, 200)]
    metric = Metric("matthews", Direction.HIGHER, Unit.NUMBER)
    found = pair_corpus(metric, counts, counts, matthews).delta
    assert found.outcome is Comparison.IDENTICAL
    assert (found.change, found.p_worse, found.harm_high) == (0.0, 1.0, None)


def test_a_row_without_statistics_makes_a_corpus_incomplete() -> None:
    before, after = statistics(50, 1), statistics(50, 2)
    after[7, 0] = math.nan
    found = corpus(before, after)
    assert found.outcome is Comparison.INCOMPLETE
    assert found.n == 49
    assert found.change is not None


def test_a_metric_without_a_value_is_incomplete_not_zero() -> None:
    found = corpus(np.zeros((20, 2)), np.zeros((20, 2)))
    assert found.outcome is Comparison.INCOMPLETE
    assert (found.baseline, found.change, found.p_worse) == (None, None, None)
    assert found.note == "the metric is not defined on these samples"


def test_a_metric_that_hangs_on_one_sample_has_no_interval() -> None:
    before, after = np.zeros((20, 2)), np.zeros((20, 2))
    before[3], after[3] = [10, 5], [12, 5]
    found = corpus(before, after)
    assert found.change == pytest.approx(math.exp(12 / 5) - math.exp(2))
    assert found.interval is None
    assert found.note == "it hangs on a single sample: its error cannot be told"


def test_an_empty_corpus_and_one_of_a_single_sample() -> None:
    assert corpus([], []).outcome is Comparison.EMPTY
    alone = corpus([[3.0, 1.0]], [[4.0, 1.0]])
    assert alone.outcome is Comparison.TOO_FEW
    assert (alone.interval, alone.p_worse) == (None, None)


def test_a_corpus_that_shifts_as_one_has_an_interval_without_width() -> None:
    before = np.column_stack([np.full(20, 3.0), np.full(20, 2.0)])
    found = corpus(before, before + np.array([1.0, 0.0]))
    assert found.interval is not None
    assert found.interval.low == pytest.approx(found.interval.high)
    assert found.min_detectable is None
    assert found.note == "every sample differs by exactly the same amount"


def test_tables_of_different_width_are_refused() -> None:
    with pytest.raises(InputError, match="different numbers of statistics"):
        corpus(np.ones((4, 2)), np.ones((4, 3)))


def test_corpus_tasks_of_a_suite_are_paired_by_id_and_sliced() -> None:
    sides = [statistics(40, 1), statistics(40, 2) * [1.05, 1.0]]
    tables = [{f"s{i:03}": tuple(row) for i, row in enumerate(side)} for side in sides]
    results = [
        result(
            [(name, a / b, "us" if name < "s020" else "eu", None) for name, (a, b) in t.items()],
            task="books",
            kind=ScoreKind.CONTINUOUS,
            unit=Unit.NUMBER,
            direction=Direction.LOWER,
        )
        for t in tables
    ]

    def stats_of(sample: SampleScore) -> tuple[float, ...]:
        # The engine will keep them beside the score; here the score tells the sides apart.
        row = tables[0][sample.sample_id]
        return row if sample.score == row[0] / row[1] else tables[1][sample.sample_id]

    corpus_of_books = delta.Corpus(perplexity, stats_of)
    found = compared(*results, corpus=corpus_of_books, resamples=300)
    assert [d.metric for d in found] == ["books", "books [eu]", "books [us]"]
    alone = corpus(*sides, task="books")
    assert (found[0].change, found[0].interval) == (alone.change, alone.interval)
    assert found[1].baseline == pytest.approx(perplexity(sides[0][20:].sum(axis=0)))
    (shuffled, *_) = compared(
        results[0].model_copy(update={"samples": results[0].samples[::-1]}),
        results[1],
        corpus=corpus_of_books,
        resamples=300,
    )
    assert shuffled == found[0]
    hole = results[1].samples[3].model_copy(update={"score": None, "missing": "timed out"})
    samples = (*results[1].samples[:3], hole, *results[1].samples[4:])
    (missing, *_) = compared(
        results[0],
        results[1].model_copy(update={"samples": samples}),
        corpus=corpus_of_books,
        resamples=300,
    )
    assert (missing.outcome, missing.n) == (Comparison.INCOMPLETE, 39)


def test_a_side_of_a_corpus_without_a_single_score_leaves_nothing_to_compare() -> None:
    """As of an adapter whose every answer is NaN."""
    whole = result([(f"{i}", 1.0 + i, None, None) for i in range(9)], kind=ScoreKind.CONTINUOUS)
    empty = result([(f"{i}", None, None, None) for i in range(9)], kind=ScoreKind.CONTINUOUS)
    corpus_of_one = delta.Corpus(perplexity, lambda sample: (sample.score or 0.0, 1.0))
    for sides in ((whole, empty), (empty, whole)):
        (found,) = compared(*sides, corpus=corpus_of_one)
        assert found.outcome is Comparison.EMPTY
        assert "9 of 9" in (found.note or "")


def test_a_corpus_without_a_single_score_is_empty() -> None:
    nothing = result([("a", None, None, None)], kind=ScoreKind.CONTINUOUS)
    (found,) = compared(nothing, nothing, corpus=delta.Corpus(perplexity, lambda _: ()))
    assert found.outcome is Comparison.EMPTY


def test_samples_with_other_statistics_are_refused() -> None:
    both = result([("a", 1.0, None, None), ("bb", 1.0, None, None)], kind=ScoreKind.CONTINUOUS)
    odd = delta.Corpus(perplexity, lambda sample: [1.0] * len(sample.sample_id))
    with pytest.raises(InputError, match="different numbers of statistics"):
        compared(both, both, corpus=odd)
