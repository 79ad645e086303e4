"""The search for a merge's weights, on worlds whose truth is known."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.cli.merge import parse_budget
from adapterbot.errors import InputError, OurFailure
from adapterbot.merge import checkpoint
from adapterbot.merge.driver import Driver, Outcome, Plan
from adapterbot.merge.items import Items, items_of
from adapterbot.merge.names import Search
from adapterbot.merge.race import Failed, evaluate
from adapterbot.merge.space import Space
from adapterbot.records.merge import StopReason

TRUTH = np.array([0.6, 0.3, 0.1])
NAMES = ("a", "b", "c")


class World:
    """Every item is answered rightly by the candidates that are near enough to the truth."""

    def __init__(self, items: int = 80, seed: int = 0, truth: Any = TRUTH) -> None:
        self.thresholds = np.random.default_rng(seed).random(items)
        self.truth = truth
        self.asked = 0
        self.calls = 0
        self.fails: Callable[[Any], bool] = lambda _: False

    def quality(self, weights: Any) -> float:
        return float(np.clip(0.95 - 1.5 * np.square(weights - self.truth).sum(), 0, 1))

    def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
        self.calls += 1
        self.asked += len(candidates) * len(items)
        return [
            Failed("the GPU caught fire")
            if self.fails(weights)
            else (self.thresholds[list(items)] < self.quality(weights)).astype(float)
            for weights in candidates
        ]


def two_tasks(items: int = 80) -> Items:
    return items_of([[()] * (items // 2), [()] * (items - items // 2)], [1.0, 1.0])


def driver(
    world: World, *, generations: int = 8, budget: float = 1e9, seed: int = 3, **options: Any
) -> Driver:
    clock = options.pop("clock", lambda: 0.0)
    racing = options.pop("racing", True)
    population = options.pop("population", 8)
    space = options.pop("space", Space(3, 1, Search.WEIGHTS))
    names = options.pop("names", NAMES)
    plan = Plan(names, population, generations, budget, seed, racing)
    items = two_tasks(len(world.thresholds))
    return Driver(space, plan, items, world, clock=clock, **options)


def by_name(outcome: Outcome) -> dict[str, Any]:
    return {row.name: row for row in outcome.finalists}


def test_it_finds_a_better_blend_than_any_start() -> None:
    world = World(400)
    outcome = driver(world, generations=20).run()
    best_start = max(world.quality(w) for w in [np.full(3, 1 / 3), *np.eye(3)])
    found = world.quality(np.array(outcome.winner.weights[0]))
    assert found > best_start + 0.05
    assert outcome.winner.report is not None
    rows = by_name(outcome)
    assert set(rows) >= {"uniform", "a", "b", "c", "mean of the search"}
    assert rows["a"].difference == 0.0, "the best single adapter is what the others are held to"
    assert outcome.winner.low is not None
    assert outcome.winner.low > 0


def test_a_vertex_is_found_though_softmax_cannot_reach_it() -> None:
    world = World(400, truth=np.array([0.0, 1.0, 0.0]))
    outcome = driver(world, generations=6).run()
    assert world.quality(np.array(outcome.winner.weights[0])) > 0.94


def test_an_adapter_may_be_called_what_we_call_another_candidate() -> None:
    names = ("uniform", "best candidate", "mean of the search")
    world = World(400, truth=np.array([0.0, 1.0, 0.0]))
    plain, odd = (driver(world, generations=3, names=names).run() for names in (NAMES, names))
    assert odd.winner.weights == plain.winner.weights
    figures = ("weights", "selection", "report", "difference", "low", "high")
    for one, other in zip(plain.finalists, odd.finalists, strict=True):
        assert one.model_dump(include=set(figures)) == other.model_dump(include=set(figures))
    called = [row.name for row in odd.finalists]
    assert len(called) == len(set(called)), "the winner goes by its name"
    assert {"uniform'", *names} <= set(called)


def test_selection_and_report_do_not_share_an_item() -> None:
    items = items_of([[["x"], ["x"], ["y"], ["y"], [], []] * 5, [()] * 9], [1.0, 2.0])
    one, two = items.split(np.random.default_rng(0))
    assert not set(one) & set(two)
    assert len(one) + len(two) == len(items)
    assert not {items.cluster[i] for i in one} & {items.cluster[i] for i in two}
    for task in (0, 1):
        assert (items.task[one] == task).any()
        assert (items.task[two] == task).any()
    with pytest.raises(ValueError, match="fewer than 4"):
        items_of([[["x"], ["x"], ["y"], ["z"]]], [1.0]).split(np.random.default_rng(0))


@given(seed=st.integers(0, 10_000))
def test_the_whole_is_the_weighted_mean_of_tasks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = items_of([[()] * 7, [()] * 3, [()] * 12], [1.0, 2.0, 0.5])
    scores = rng.normal(size=22)
    everything = np.arange(22)
    want = (scores[:7].mean() + 2 * scores[7:10].mean() + 0.5 * scores[10:].mean()) / 3.5
    assert items.mean(scores, everything) == pytest.approx(want)
    found = items.difference(scores, everything)
    assert found.mean == pytest.approx(want)
    parts = [(1.0, scores[:7]), (2.0, scores[7:10]), (0.5, scores[10:])]
    error = math.sqrt(sum((w / 3.5) ** 2 * p.var(ddof=1) / len(p) for w, p in parts))
    assert found.error == pytest.approx(error)


def test_intervals_cover_the_truth() -> None:
    """95 % means 95 of 100, with clusters too."""
    rng = np.random.default_rng(1)
    items = items_of([[[i // 4] for i in range(240)]], [1.0])
    hits = 0
    for _ in range(400):
        effects = np.repeat(rng.normal(size=60), 4)
        scores = 0.1 + effects + rng.normal(size=240)
        _, low, high = items.difference(scores, np.arange(240)).interval
        hits += low <= 0.1 <= high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("sizes", [(3,), (6,), (4, 9), (2, 2), (3, 60)])
def test_intervals_of_few_samples_cover_the_truth(sizes: tuple[int, ...]) -> None:
    """By the normal quantile a half of six samples covers 89 of 100, and of three 81."""
    rng = np.random.default_rng(2)
    items = items_of([[()] * size for size in sizes], [1.0] * len(sizes))
    hits = 0
    for _ in range(2000):
        found = items.difference(rng.normal(size=sum(sizes)), np.arange(sum(sizes)))
        _, low, high = found.interval
        hits += low <= 0.0 <= high
    assert hits / 2000 >= 0.935


def test_intervals_cover_the_truth_where_one_document_holds_half_of_the_rows() -> None:
    """Attack: it pulls the mean towards itself, and an interval that takes its residual for its
    error covered the truth in 76 of 100."""
    rng = np.random.default_rng(4)
    items = items_of([[["long"]] * 19 + [()] * 19], [1.0])
    hits = 0
    for _ in range(400):
        scores = 0.1 + np.concatenate([np.repeat(rng.normal(), 19), rng.normal(size=19)])
        _, low, high = items.difference(scores, np.arange(38)).interval
        hits += low <= 0.1 <= high
    assert hits / 400 >= 0.93


@pytest.mark.parametrize("sizes", [(2,), (3,), (2, 2, 2)])
def test_few_scores_that_differ_all_in_one_way_prove_nothing(sizes: tuple[int, ...]) -> None:
    """Attack: they have no spread, and so no error. Of two that differ by a coin each, one in four
    pairs was called better."""
    rng = np.random.default_rng(5)
    items = items_of([[()] * size for size in sizes], [1.0] * len(sizes))
    everything = np.arange(sum(sizes))
    better = worse = 0
    for _ in range(1000):
        differences = rng.choice([-1.0, 1.0], size=len(everything))
        _, low, high = items.difference(differences, everything).interval
        better += low > 0
        worse += high < 0
    assert max(better, worse) / 1000 <= 0.035
    certain = items_of([[()] * 12], [1.0]).difference(np.ones(12), np.arange(12)).interval
    assert certain == (1.0, 1.0, 1.0)


def test_intervals_cover_the_truth_where_several_tasks_ask_the_same() -> None:
    """Attack: metrics of one and the same answers, each of which was taken for news. An interval
    over four of them covered the truth in 70 of 100."""
    rng = np.random.default_rng(6)
    items = items_of([[[i] for i in range(30)]] * 4, [1.0] * 4)
    hits = 0
    for _ in range(400):
        common = rng.normal(size=30)
        scores = np.concatenate([0.9 * common + 0.4 * rng.normal(size=30) for _ in range(4)])
        _, low, high = items.difference(scores, np.arange(120)).interval
        hits += low <= 0.0 <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_tasks_that_ask_the_same_are_one_sample_of_their_mean() -> None:
    rng = np.random.default_rng(7)
    scores = rng.normal(size=(3, 15))
    joined = items_of([[[i] for i in range(15)]] * 3, [1.0, 2.0, 3.0])
    found = joined.difference(scores.ravel(), np.arange(45))
    alone = items_of([[()] * 15], [1.0])
    want = alone.difference(np.array([1, 2, 3]) @ scores / 6, np.arange(15))
    assert (found.mean, found.error) == pytest.approx((want.mean, want.error))
    assert found.df == want.df


def test_what_several_tasks_ask_is_in_one_half() -> None:
    """Chosen by one of them, it would be no news to the other."""
    first = [[f"q{i}"] for i in range(10)]
    second = [[f"q{i}", f"d{i // 2}"] for i in range(4, 16)]
    items = items_of([first, second, [()] * 7], [1.0] * 3)
    assert items.cluster[4] == items.cluster[5] == items.cluster[10], "by way of their document"
    for seed in range(50):
        halves = items.split(np.random.default_rng(seed))
        assert sorted(np.concatenate(halves)) == list(range(29))
        one, two = ({int(items.cluster[i]) for i in half} for half in halves)
        assert not one & two
        for task in range(3):
            counts = [
                len({int(items.cluster[i]) for i in half if items.task[i] == task})
                for half in halves
            ]
            assert min(counts) >= 2
            assert abs(counts[0] - counts[1]) <= 1


def test_one_task_of_equal_clusters_has_the_interval_of_students_t() -> None:
    scores = np.random.default_rng(3).normal(0.3, 1.0, size=9)
    _, low, high = items_of([[()] * 9], [1.0]).difference(scores, np.arange(9)).interval
    want = scipy.stats.ttest_1samp(scores, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((want.low, want.high), rel=1e-4)


def test_a_beginning_stands_for_all_tasks() -> None:
    items = items_of([[()] * 90, [()] * 30], [1.0, 1.0])
    order = items.interleaved(np.arange(120), np.random.default_rng(0))
    assert sorted(order) == list(range(120))
    assert 6 <= sum(items.task[order[:32]]) <= 10


def test_racing_keeps_the_ranking_and_asks_less() -> None:
    for seed in range(5):
        world = World(400, seed=seed)
        space = Space(3, 1, Search.WEIGHTS)
        rng = np.random.default_rng(seed)
        candidates = [rng.dirichlet(np.ones(3)) [None] for _ in range(12)]  # fmt: skip
        items = two_tasks(400)
        order = items.interleaved(np.arange(400), rng)
        full = evaluate(world, candidates, items, order)
        before = world.asked
        raced = evaluate(world, candidates, items, order, survivors=6)
        assert world.asked - before < 0.9 * before
        top = set(np.argsort([-r.score for r in full])[:6])
        kept = {i for i, r in enumerate(raced) if r.asked == 400}
        worst = min(full[i].score for i in top)
        assert all(i in kept or full[i].score <= worst for i in top)
        for one, other in zip(full, raced, strict=True):
            assert other.score == pytest.approx(one.score, abs=0.25)
        assert space.dimension == 2


def test_nobody_leaves_for_noise_where_a_chunk_holds_one_sample_of_each_task() -> None:
    """Whose error no task can tell by itself."""
    items = items_of([[()] * 12] * 60, [1.0] * 60)

    class Even:
        def scores(self, candidates: Sequence[Any], chosen: Sequence[int]) -> list[Any]:
            return [
                (np.random.default_rng([1, *w[0].astype(int), *chosen]).random(len(chosen)) < 0.5)
                .astype(float)
                for w in candidates
            ]  # fmt: skip

    order = items.interleaved(np.arange(len(items)), np.random.default_rng(0))
    candidates = [np.array([[float(i)]]) for i in range(16)]
    raced = evaluate(Even(), candidates, items, order, survivors=8)
    assert sum(result.asked == len(items) for result in raced) >= 15


def test_a_failure_ranks_last_and_is_reported() -> None:
    world = World()
    world.fails = lambda weights: weights[0, 2] > 0.3
    outcome = driver(world).run()
    standing = outcome.standing
    assert standing.failed > 0
    assert standing.failures[0].reason == "the GPU caught fire"
    assert standing.failures[0].score == -1e9
    assert outcome.winner.failed is None
    assert by_name(outcome)["c"].failed == "the GPU caught fire"
    assert by_name(outcome)["c"].selection is None


def test_nothing_is_better_than_a_best_adapter_that_the_report_could_not_ask() -> None:
    """The next best is not the best."""

    class Late(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            self.fails = lambda w: bool({*items} & reported) and w[0, 0] == 1
            return super().scores(candidates, items)

    world = Late(400)
    searching = driver(world, generations=8)
    reported = set(searching.report.tolist())
    outcome = searching.run()
    assert by_name(outcome)["a"].failed == "the GPU caught fire"
    assert outcome.winner.report is not None
    assert outcome.winner.difference is None


def test_when_everything_fails_nothing_is_saved() -> None:
    world = World()
    world.fails = lambda _: True
    saved: list[Any] = []
    with pytest.raises(OurFailure, match=r"every starting point failed .*: the GPU caught fire"):
        driver(world, save=saved.append).run()
    assert saved == []


@pytest.mark.parametrize("stop_after", [0, 1, 4])
def test_a_resumed_search_goes_on_bit_for_bit(stop_after: int, tmp_path: Any) -> None:
    whole = driver(World()).run()
    states: list[Any] = []
    driver(World(), generations=stop_after, save=lambda s: states.append(json.dumps(s))).run()
    checkpoint.save(tmp_path / "c.json", {"suite": "x"}, json.loads(states[-1]))
    second = driver(World())
    second.resume(checkpoint.load(tmp_path / "c.json").state)
    resumed = second.run()
    assert resumed.winner == whole.winner
    assert resumed.finalists == whole.finalists
    assert resumed.standing.history == whole.standing.history
    assert resumed.standing.evaluated == whole.standing.evaluated


def test_a_checkpoint_of_another_search_is_named(tmp_path: Any) -> None:
    """By adapters, suite and seed; digests by their beginning, as everywhere."""
    place = tmp_path / "checkpoint"
    held = {"adapters": ["a" * 64, "b" * 64], "suite": "c" * 64, "seed": 0}
    checkpoint.save(place, held, {"x": 1})
    saved = checkpoint.load(place)
    assert saved.state == {"x": 1}
    saved.check(held)
    saved.check({"seed": 0})
    for change, words in (
        ({"adapters": ["a" * 64, "d" * 64]}, "aaaaaaaaaaaa… bbbbbbbbbbbb…, and now it is aaaaaaa"),
        ({"suite": "e" * 64}, "suite: was made with cccccccccccc…, and now it is eeeeeeeeeeee…"),
        (
            {"seed": 1},
            "seed: was made with 0, and now it is 1 (resume with the same inputs; or",
        ),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            saved.check({**held, **change})
    unlike = json.dumps({"version": checkpoint.VERSION, "identity": [], "state": {}})
    for text in ("", "{}", "[]", unlike, "[" * 100_000):
        place.write_text(text)
        with pytest.raises(InputError, match=r"is not a checkpoint of a merge \(remove it, and"):
            checkpoint.load(place)


def test_an_interrupt_keeps_the_best_so_far() -> None:
    world = World()
    states: list[Any] = []

    class Interrupted(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            if self.calls == 9:
                raise KeyboardInterrupt
            return super().scores(candidates, items)

    outcome = driver(Interrupted(), save=states.append).run()
    assert outcome.stop is StopReason.INTERRUPTED
    assert outcome.winner.selection == max(
        row.selection for row in outcome.finalists if row.selection is not None
    )
    assert outcome.winner.report is None
    # The generation that was cut is asked again by a resumed run, which ends as if nothing were.
    whole = driver(world).run()
    second = driver(World())
    second.resume(states[-1])
    assert second.run().finalists == whole.finalists


def test_an_interrupt_before_anything_is_known_is_one() -> None:
    class Interrupted(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver(Interrupted()).run()


@pytest.mark.parametrize(("racing", "chunk"), [(True, 32), (False, 128)])
def test_the_budget_ends_it_within_a_generation_that_then_counts_for_nothing(
    racing: bool, chunk: int
) -> None:
    world = World(400)
    # A second for every thousand questions.
    searching = driver(
        world, clock=lambda: world.asked / 1000, budget=5.6, generations=1000, racing=racing
    )
    outcome = searching.run()
    assert outcome.stop is StopReason.BUDGET
    assert world.asked / 1000 <= 5.6 + 8 * chunk / 1000, "eight candidates' chunk is left over"
    counted = sum(generation.evaluated for generation in outcome.standing.history)
    assert counted == outcome.standing.evaluated < world.asked
    assert outcome.winner.report is not None


def test_a_generation_that_fits_the_budget_is_not_cut() -> None:
    """The answers of the one under way count in neither the seconds nor the number of answers by
    which the report is foreseen."""
    world = World(400)
    # 800 questions of the starts, at most 1600 of a generation, and 1500 are left for the report.
    outcome = driver(world, clock=lambda: world.asked / 1000, budget=4.2).run()
    assert outcome.stop is StopReason.BUDGET
    assert len(outcome.standing.history) == 2


def test_a_search_of_no_generation_ends_with_one_of_its_starts() -> None:
    """What single adapters scored makes a guess at the centre, and a guess is not an average."""
    world = World(400)
    outcome = driver(world, clock=lambda: world.asked / 1000, budget=2).run()
    assert outcome.stop is StopReason.BUDGET
    assert len(outcome.standing.history) == 1
    assert set(by_name(outcome)) == {"uniform", *NAMES}


@pytest.mark.parametrize("search", [Search.WEIGHTS, Search.SIGNED])
@pytest.mark.parametrize("generations", [3, 12])
def test_where_every_merge_answers_alike_the_simplest_wins(
    search: Search, generations: int
) -> None:
    """And not where a search without a lead had strayed to."""

    class Alike(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            return [(self.thresholds[list(items)] < 0.9).astype(float) for _ in candidates]

    space = Space(3, 1, search)
    outcome = driver(Alike(), space=space, generations=generations).run()
    assert outcome.winner.name == "uniform"
    assert outcome.winner.weights == ((1 / 3, 1 / 3, 1 / 3),)
    assert set(by_name(outcome)) == {"uniform", *NAMES}, "no row is another's by another name"


def test_a_search_that_lost_what_it_began_with_gives_it_back() -> None:
    """Only single adapters are good, and the best of many blends is so by luck alone."""

    class Alone(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            found = []
            for weights in candidates:
                drawn = np.random.default_rng([len(self.thresholds), *weights.tobytes()]).random(
                    len(self.thresholds)
                )
                found.append((drawn < (0.8 if weights.max() == 1 else 0.7))[list(items)] * 1.0)
            return found

    names = []
    for seed in range(20):
        outcome = driver(Alone(80 + seed), seed=seed, generations=12).run()
        rows = by_name(outcome)
        assert outcome.winner.selection is not None
        assert outcome.winner.selection >= max(rows[name].selection for name in ("uniform", *NAMES))
        names.append(outcome.winner.name)
    assert sum(name in NAMES for name in names) >= 15


def test_noise_is_not_called_converged() -> None:
    """The truth is flat: whoever claims to have improved was fooled by its own maximum."""

    class Flat(World):
        def scores(self, candidates: Sequence[Any], items: Sequence[int]) -> list[Any]:
            return [
                (np.random.default_rng(hash(w.tobytes()) % 2**32).random(80)[list(items)] < 0.5)
                .astype(float)
                for w in candidates
            ]  # fmt: skip

    claims = [
        driver(Flat(), seed=seed, generations=12).run().stop is StopReason.CONVERGED
        for seed in range(12)
    ]
    assert sum(claims) <= 2


def test_what_no_longer_improves_is_called_converged() -> None:
    outcome = driver(World(400), generations=200).run()
    assert outcome.stop is StopReason.CONVERGED
    assert outcome.gain is not None
    middle, low, high = outcome.gain
    assert high - low <= middle
    assert len(outcome.standing.history) < 100


@given(
    adapters=st.integers(2, 16),
    groups=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_softmax_and_back(adapters: int, groups: int, seed: int) -> None:
    space = Space(adapters, groups, Search.PER_LAYER)
    rng = np.random.default_rng(seed)
    point = rng.normal(size=space.dimension)
    weights = space.weights(point)
    assert weights.shape == (groups, adapters)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(space.point(weights), point, atol=1e-9)
    np.testing.assert_allclose(space.weights(space.point(space.uniform())), space.uniform())
    np.testing.assert_allclose(
        space.weights(space.point(space.single(1))), space.single(1), atol=1e-3
    )
    signed = Space(adapters, 1, Search.SIGNED)
    free = rng.normal(size=adapters)
    np.testing.assert_array_equal(signed.point(signed.weights(free)), free)


def test_no_adapter_is_special_to_the_search() -> None:
    """Equal steps in every direction move every adapter's weight alike."""
    space = Space(5, 1, Search.WEIGHTS)
    rng = np.random.default_rng(0)
    spread = np.std([np.log(space.weights(rng.normal(size=4))[0]) for _ in range(4000)], axis=0)
    assert spread.max() / spread.min() < 1.1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("24h", 86_400),
        ("1.5h", 5400),
        ("2m", 120),
        (" 1H ", 3600),
        ("60s", 60),
    ],
)
def test_budgets(text: str, seconds: int) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "59s", "25h", "90", "1.h", "30m1h", "-5m", "١m", "1h 2m"]
)
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        parse_budget(text)
