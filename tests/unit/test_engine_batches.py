"""Batches hold what fits, and a run survives memory that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import OurFailure
from adapterbot.eval.answers import cut_at_stop
from adapterbot.eval.batches import Batcher, cost
from adapterbot.eval.drafts import Worth
from adapterbot.eval.generation import GenerationRequest
from adapterbot.eval.reading import like_lengths


def identity(batch: Sequence[int]) -> list[int]:
    return list(batch)


def room_for_three() -> tuple[list[int], Callable[[Sequence[int]], list[int]]]:
    """A device whose memory ends with a fourth row, and the sizes of the batches it was given."""
    sizes: list[int] = []

    def compute(batch: Sequence[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(batch)

    return sizes, compute


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    budget=st.integers(1, 200),
)
def test_every_request_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    batches: list[list[int]] = []

    def compute(batch: Sequence[int]) -> list[int]:
        batches.append(list(batch))
        return [2 * length for length in batch]

    batcher = Batcher(budget, "cpu")
    got = dict(batcher.run(dict(enumerate(lengths)), lambda length: length, compute))
    assert got == {index: 2 * length for index, length in enumerate(lengths)}
    assert all(len(b) == 1 or len(b) * max(b) <= budget for b in batches)
    flat = [length for batch in batches for length in batch]
    assert flat == sorted(lengths, reverse=True)


def test_batches_halve_until_they_fit() -> None:
    sizes, compute = room_for_three()
    batcher = Batcher(160, "cpu")
    got = dict(batcher.run(dict.fromkeys(range(20), 10), lambda length: length, compute))
    assert got == dict.fromkeys(range(20), 10)
    assert sizes[:4] == [16, 8, 4, 2]
    assert set(sizes[3:]) == {2}
    assert batcher.budget == 20, "the lesson is kept for the next run"


def test_a_batch_that_did_not_fit_is_not_tried_again_as_it_was() -> None:
    """A batch may be far below the budget: there are no more requests, or no more rows allowed."""
    sizes, compute = room_for_three()
    list(Batcher(65_536, "cpu").run(dict.fromkeys(range(10), 10), lambda length: length, compute))
    assert sizes == [10, 5, 2, 2, 2, 2, 2]


def test_one_sample_that_does_not_fit_is_our_failure() -> None:
    def compute(batch: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OurFailure, match="too little memory for a single sample"):
        list(Batcher(1000, "cpu").run({0: 10, 1: 10}, lambda length: length, compute))


@given(
    requests=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=40),
    budget=st.integers(1, 300),
)
def test_families_stay_together(requests: list[tuple[int, int]], budget: int) -> None:
    batches: list[list[tuple[int, int]]] = []

    def compute(batch: Sequence[tuple[int, int]]) -> list[int]:
        batches.append(list(batch))
        return [0] * len(batch)

    given_ = dict(enumerate(requests))
    list(Batcher(budget, "cpu").run(given_, lambda r: r[0], compute, family=lambda r: r[1]))
    assert all(len(b) == 1 or len(b) * max(n for n, _ in b) <= budget for b in batches)
    flat = [family for batch in batches for _, family in batch]
    assert len(flat) == len(requests)
    assert sum(a != b for a, b in pairwise(flat)) == max(len(set(flat)) - 1, 0)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9), cost=st.sampled_from([1, 20, 500])
)
def test_rows_are_read_in_the_groups_that_cost_least(lengths: list[int], cost: int) -> None:
    """Against every way of cutting the rows in order of length."""

    def price(groups: Sequence[Sequence[int]]) -> int:
        return sum(len(group) * max(lengths[row] for row in group) + cost for group in groups)

    found = like_lengths(lengths, cost)
    assert sorted(row for group in found for row in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cuts = range(1, len(order))
    ways = (chosen for size in range(len(order)) for chosen in combinations(cuts, size))
    assert price(found) == min(
        price([order[a:b] for a, b in pairwise((0, *way, len(order)))]) for way in ways
    )
    assert len(like_lengths([7] * 40, cost)) == 1


def test_positions_that_are_only_attended_to_count_less() -> None:
    assert cost(0, 100) == 100
    assert cost(80, 100) == 40


def account(count: int, prompt: int = 10, draft: int = 20, rows: int = 40) -> Worth:
    return Worth("cpu", prompts=count * prompt, drafts=count * draft, count=count, rows=rows)


def test_drafts_that_hold_pay_and_drafts_that_do_not_do_not() -> None:
    good, half, bad = (account(40) for _ in range(3))
    long = account(40, prompt=500)
    for _ in range(20):
        good.book(prompt=10, guess=20, known=21, complete=True)
        half.book(prompt=10, guess=20, known=21, complete=True)
        half.book(prompt=10, guess=20, known=11, complete=False)
        bad.book(prompt=10, guess=20, known=1, complete=False)
        long.book(prompt=500, guess=20, known=15, complete=False)
    assert good.pays
    assert half.pays, "a token decoded costs more than two that are read"
    assert not bad.pays
    assert not long.pays, "the prompt is read again"


@given(count=st.integers(1, 3000), prompt=st.integers(1, 300), rows=st.integers(1, 500))
def test_what_a_pilot_costs_where_no_draft_holds_is_the_stake(
    count: int, prompt: int, rows: int
) -> None:
    worth = account(count, prompt, 20, rows)
    assert all(0 <= index < count for index in worth.pilot)
    plain = count * (prompt + 20 * (2 + 16 / rows))
    lost = len(worth.pilot) * (prompt + 20)
    assert len(worth.pilot) == 1 or lost <= 0.03 * plain


def test_one_failure_early_does_not_end_drafting() -> None:
    worth = account(40, rows=8)
    assert worth.pilot
    worth.book(prompt=10, guess=20, known=1, complete=False)
    assert worth.pays


def test_what_follows_the_last_asked_token_is_not_read() -> None:
    assert GenerationRequest((1,), limit=3, draft=(5, 6, 7, 8)).guess == (5, 6)
    assert GenerationRequest((1,), limit=1, draft=(5, 6)).guess == ()


def test_answers_that_are_nearly_done_are_not_decoded_with_those_that_begin() -> None:
    whole = GenerationRequest((1,) * 9, limit=48)
    begun = replace(whole, draft=(2,) * 30, begun=(2,))
    late = replace(begun, begun=(2,) * 28)
    longer = replace(begun, begun=(2,) * 40)
    assert replace(whole, begun=(3,), draft=(2,) * 48).passes == whole.passes
    assert whole.passes > begun.passes > late.passes
    assert longer.passes >= 0
    batches: list[int] = []

    def compute(batch: Sequence[GenerationRequest]) -> list[None]:
        batches.append(len(batch))
        return [None] * len(batch)

    requests = dict(enumerate([late, whole, late, whole, late, whole]))
    order = Batcher(3 * whole.longest, "cpu").run(
        requests, lambda r: r.longest, compute, passes=lambda r: r.passes
    )
    assert [index for index, _ in order] == [1, 3, 5, 0, 2, 4]
    assert batches == [3, 3]


def test_text_ends_before_the_first_stop_string() -> None:
    assert cut_at_stop("a b\nc", ("c", "\n")) == "a b"
    assert cut_at_stop("a b", ("x",)) == "a b"
    assert cut_at_stop("a b", ()) == "a b"
