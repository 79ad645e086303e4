"""Stopping early, from a suite to a verdict: what is asked, what is not, and what is made of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapterbot.eval.answers import GenerationSettings, Request, Sample
from adapterbot.eval.suite import Selection, Task, selected
from adapterbot.judging import noise
from adapterbot.judging.early import LOOKS, Measured, _chunks, measure
from adapterbot.records import (
    Direction,
    EvalStats,
    NoiseFloor,
    SampleScore,
    ScoreKind,
    Standing,
    TaskResult,
    Unit,
)
from adapterbot.verdict import MetricPolicy, judge
from adapterbot.wording import noise_floor, stopped_early

CANDIDATE: Any = object()


def task(name: str, n: int, *, slices: int = 0, clusters: int = 0, **more: Any) -> Task:
    fields: dict[str, Any] = {
        "name": name,
        "scorer": "exact",
        "direction": Direction.HIGHER,
        "kind": ScoreKind.BINARY,
        "unit": Unit.FRACTION,
        "margin": 0.05,
        "gated": True,
        "generation": GenerationSettings(),
        "request": Request.GENERATE,
        "digest": f"{sum(map(ord, name)):064x}",
    } | more
    return Task(
        samples=tuple(
            Sample(
                id=f"s{i}",
                prompt=f"p{i}",
                slice=f"part{i % slices}" if slices else None,
                cluster=f"c{i // clusters}" if clusters else None,
            )
            for i in range(n)
        ),
        **fields,
    )


class World:
    """Two adapters whose scores are known: `score(task, sample, is_candidate)`."""

    def __init__(self, score: Callable[[str, Sample, bool], float | None]) -> None:
        self._score = score
        self.asked: list[tuple[str, str, bool]] = []

    def evaluate(
        self,
        tasks: Sequence[Task],
        adapter: Any,
        *,
        samples: Selection | None = None,
        progress: Callable[[int, int], None] | None = None,
        **_: Any,
    ) -> tuple[TaskResult, ...]:
        results = []
        for one in tasks:
            found = []
            for sample in selected(one, samples):
                self.asked.append((one.name, sample.id, adapter is not None))
                score = self._score(one.name, sample, adapter is not None)
                found.append(
                    SampleScore(
                        sample_id=sample.id,
                        score=score,
                        missing="gone" if score is None else None,
                        slice=sample.slice,
                        cluster=sample.cluster,
                        stats=(1.0, 2.0),
                    )
                )
            results.append(
                TaskResult(
                    task=one.name,
                    scorer=one.scorer,
                    direction=one.direction,
                    kind=one.kind,
                    unit=one.unit,
                    samples=tuple(found),
                )
            )
        return tuple(results)

    def stats(self) -> EvalStats:
        return EvalStats()

    def close(self) -> None:
        pass


def drawn(drop: float, seed: int = 0) -> Callable[[str, Sample, bool], float]:
    """0.9 right under the baseline; the candidate loses `drop`, and 5 % go either way."""

    def score(name: str, sample: Sample, candidate: bool) -> float:
        chance = random.Random(f"{seed} {name} {sample.id}")
        right, flips, loses = (chance.random() for _ in range(3))
        before = right < 0.9
        if not candidate:
            return float(before)
        if before:
            return float(not (flips < 0.025 or loses < drop / 0.9))
        return float(flips < 0.225)

    return score


def policies(*tasks: Task, **more: Any) -> dict[str, MetricPolicy]:
    return {
        one.name: MetricPolicy(one.gated, one.margin, threshold=one.threshold) for one in tasks
    } | more


def run(world: World, *tasks: Task, rules: dict[str, MetricPolicy] | None = None) -> Measured:
    seen: list[tuple[int, int]] = []
    early = measure(
        world,
        tasks,
        (None, CANDIDATE),
        rules or policies(*tasks),
        alpha=0.05,
        sequential=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(done <= total for done, total in seen)
    return early


def standings(early: Measured, rules: dict[str, MetricPolicy]) -> dict[str, Standing]:
    metrics, _ = judge(early.compare(), rules)
    return {metric.delta.metric: metric.standing for metric in metrics}


def test_a_clear_drop_costs_a_fraction() -> None:
    one = task("t", 600)
    world = World(drawn(0.4))
    early = run(world, one)
    assert standings(early, policies(one)) == {"t": Standing.REGRESSED}
    assert early.stop.planned == 600
    assert early.stop.used <= 120
    assert len(world.asked) == 2 * early.stop.used
    assert len(early.tasks[0].samples) == early.stop.used == len(early.before[0].samples)
    assert early.compare()[0].delta.n == early.stop.used
    assert f"stopped after {early.stop.used} of 600 samples" in early.compare()[0].delta.note


def test_no_change_under_a_wide_margin_costs_a_fraction() -> None:
    one = task("t", 600, margin=0.15)
    early = run(World(drawn(0.0)), one)
    assert standings(early, policies(one)) == {"t": Standing.OK}
    assert early.stop.used <= 300


def test_what_is_never_clear_is_asked_in_full_and_nothing_twice() -> None:
    one = task("t", 205, margin=0.0)
    world = World(drawn(0.02))
    early = run(world, one)
    assert early.stop.used == early.stop.planned == 205
    assert len(set(world.asked)) == len(world.asked) == 410
    assert "stopped" not in early.compare()[0].delta.note


def test_a_settled_task_is_asked_no_more_while_others_go_on() -> None:
    clear, open_, shown = task("clear", 400), task("open", 400, margin=0.0), task("shown", 400)
    shown = shown.model_copy(update={"gated": False})
    world = World(lambda name, s, c: drawn(0.4 if name == "clear" else 0.01)(name, s, c))
    early = run(world, clear, open_, shown)
    used = {result.task: len(result.samples) for result in early.before}
    assert used["clear"] <= 120
    assert used["open"] == used["shown"] == 400
    alone = run(World(world._score), clear, shown)
    assert len(alone.before[1].samples) == len(alone.before[0].samples), "nothing decides any more"


def test_the_order_of_rows_changes_no_digit() -> None:
    one = task("t", 300, slices=3, clusters=4)
    shuffled = list(one.samples)
    random.Random(1).shuffle(shuffled)
    other = one.model_copy(update={"samples": tuple(shuffled)})
    left, right = run(World(drawn(0.2)), one), run(World(drawn(0.2)), other)
    assert left.stop == right.stop
    assert [p.delta for p in left.compare()] == [p.delta for p in right.compare()]
    assert judge(left.compare(), policies(one)) == judge(right.compare(), policies(one))


def test_a_file_sorted_by_topic_is_not_judged_by_its_first_topic() -> None:
    """The first third is worse, the rest better by more: on the whole nothing got worse."""
    one = task("t", 600)

    def score(name: str, sample: Sample, candidate: bool) -> float:
        number = int(sample.id[1:])
        if number < 200:
            return float(not candidate)
        return float(candidate or number % 4 == 0)

    assert standings(run(World(score), one), policies(one)) == {"t": Standing.IMPROVED}


@pytest.mark.parametrize(
    ("n", "clusters"), [(30, 0), (1000, 0), (999, 7), (5, 0), (0, 0), (40, 40)]
)
def test_chunks_are_few_hold_everything_once_and_no_cluster_in_part(n: int, clusters: int) -> None:
    one = task("t", n, clusters=clusters)
    chunks = _chunks(one)
    assert len(chunks) <= LOOKS
    assert sorted(name for chunk in chunks for name in chunk) == sorted(s.id for s in one.samples)
    where = {name: i for i, chunk in enumerate(chunks) for name in chunk}
    for sample in one.samples:
        if sample.cluster:
            first = int(sample.cluster[1:]) * clusters
            assert where[sample.id] == where[f"s{first}"]


def test_what_has_no_anytime_test_is_measured_in_full() -> None:
    corpus = task("corpus", 100, scorer="bleu", kind=ScoreKind.CONTINUOUS, unit=Unit.NUMBER)
    soup = task("soup", 100, threshold=0.5)
    plain = task("plain", 100)
    world = World(lambda name, s, c: 1.0 - c if name != "corpus" else 0.0)
    early = run(world, plain, soup)
    used = {result.task: len(result.samples) for result in early.before}
    assert used["soup"] == 100
    assert used["plain"] < 50
    assert all("stopped" not in p.delta.note for p in early.compare() if p.delta.task == "soup")
    assert run(world, task("a", 80).model_copy(update={"gated": False})).stop.used == 80
    used = {result.task: len(result.samples) for result in run(world, plain, corpus).before}
    assert used["corpus"] == 100
    assert used["plain"] < 50


def test_a_gated_slice_must_be_clear_too() -> None:
    one = task("t", 400, slices=4)
    rules = policies(one) | {"t [part1]": MetricPolicy(True, 0.0)}

    def score(name: str, sample: Sample, candidate: bool) -> float:
        return drawn(0.5 if sample.slice != "part1" else 0.0)(name, sample, candidate)

    early = run(World(score), one, rules=rules)
    found = standings(early, rules)
    assert found["t"] is Standing.REGRESSED
    assert early.stop.used == 400, "no number of samples clears a margin of 0"
    assert found["t [part0]"] is Standing.INFORMATIVE


def test_a_missing_score_ends_it_unjudged() -> None:
    one = task("t", 400)
    early = run(World(lambda n, s, c: None if c and int(s.id[1:]) % 7 == 3 else 1.0), one)
    assert standings(early, policies(one)) == {"t": Standing.NOT_JUDGED}
    assert early.stop.used == 20


# ---------------------------------------------------------------- the self-check


def test_the_noise_floor_counts_what_differs_and_names_the_largest_shift() -> None:
    tasks = (task("a", 40), task("b", 40))
    world = World(drawn(0.0))
    before = world.evaluate(tasks, None)
    floor = noise.measure(world, tasks, None, before, 32)
    assert floor == NoiseFloor(samples=32, answers=0, scores=0)
    assert noise_floor(floor) == "A/A: none of 32 answers differs"

    def other(name: str, sample: Sample, candidate: bool) -> float:
        score = drawn(0.0)(name, sample, candidate)
        return 1 - score if name == "b" and int(sample.id[1:]) < 4 else score

    again = World(other).evaluate(tasks, None)
    moved = noise.compare(before, again)
    assert (moved.samples, moved.scores, moved.task, moved.asked) == (80, 4, "b", 40)
    assert moved.shift == pytest.approx(0.1, abs=0.051)


def test_the_self_check_asks_no_more_than_half_and_always_the_same() -> None:
    one = task("t", 20)
    asked = []
    for _ in range(2):
        world = World(drawn(0.0))
        before = world.evaluate([one], None)
        world.asked.clear()
        assert noise.measure(world, [one], None, before, 32).samples == 10
        asked.append(list(world.asked))
    assert asked[0] == asked[1]
    assert noise_floor(NoiseFloor(samples=0, answers=0, scores=0)) == "A/A: too few samples for it"


def test_in_words() -> None:
    one = task("t", 600)
    early = run(World(drawn(0.4)), one)
    words = stopped_early(early.stop)
    assert words == f"clear after {early.stop.used} of 600 samples (sequential)"
    floor = NoiseFloor(samples=32, answers=2, scores=1, task="dates_us", shift=1 / 16, asked=16)
    assert noise_floor(floor) == "A/A: 2 of 32 answers differ, dates_us by 6.2 points on 16 samples"
