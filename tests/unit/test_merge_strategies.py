"""Merge strategies, held against PEFT's own on dense ΔW, and expressions."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils
from torch import Tensor

from adapterbot.errors import InputError
from adapterbot.merge import sparse
from adapterbot.merge.expression import parse_expression
from adapterbot.merge.names import SPARSE, Strategy
from adapterbot.merge.strategies import Merger, check
from adapterbot.weights.adapter import LowRank
from adapterbot.weights.lowrank import norm


def update(rank: int, seed: int, out: int = 24, into: int = 36) -> LowRank:
    source = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, into, generator=source), torch.randn(out, rank, generator=source)
    return LowRank(a, b, 0.5 + seed / 10)


def dense(one: LowRank) -> Tensor:
    return one.scale * (one.b.double() @ one.a.double())


TERMS = [(0.7, update(4, 1)), (0.5, update(2, 2)), (1.1, update(8, 3))]
DELTAS = [dense(one).float() for _, one in TERMS]
WEIGHTS = torch.tensor([w for w, _ in TERMS])


@pytest.mark.filterwarnings("ignore:The density")
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_and_pruning_are_pefts_on_delta_weights(density: float) -> None:
    even = [(1 / 3, one) for _, one in TERMS]
    ties = Merger(Strategy.TIES, 1.0, rank=24, density=density)("m", even)
    want = merge_utils.ties(DELTAS, torch.ones(3), density)
    torch.testing.assert_close(dense(ties).float(), want, rtol=1e-4, atol=1e-4)
    prune = Merger(Strategy.MAGNITUDE_PRUNE, 1.0, rank=24, density=density)("m", TERMS)
    want = merge_utils.magnitude_prune(DELTAS, WEIGHTS, density)
    torch.testing.assert_close(dense(prune).float(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", sorted(SPARSE | {Strategy.LINEAR}))
def test_twins_are_merged_to_themselves(strategy: Strategy) -> None:
    """Whatever the strategy: uniform weights keep the strength of what all agree on."""
    one = update(4, 1)
    merged = Merger(strategy, 1.0, density=1.0)("m", [(1 / 3, one)] * 3)
    torch.testing.assert_close(dense(merged), dense(one), rtol=1e-5, atol=1e-5)


def test_ties_is_the_mean_of_those_that_bear_the_sign() -> None:
    """TIES §4.3, written out by entry; an adapter that leaves the module alone bears none."""
    terms = [(w, one) for w, (_, one) in zip((0.2, -0.7, 1e-6), TERMS, strict=True)]
    got = dense(Merger(Strategy.TIES, 2.0, rank=24, density=1.0)("m", terms))
    weights = torch.tensor([w for w, _ in terms], dtype=torch.float64)[:, None, None]
    deltas = weights * torch.stack([dense(one) for _, one in TERMS])
    bears = deltas.sign() == deltas.sum(0).sign()
    want = 2.0 * (deltas * bears).sum(0) / (weights.abs() * bears).sum(0)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_weighs_nothing_changes_nothing() -> None:
    alone = Merger(Strategy.TIES, 0.7, rank=24, density=0.4)("m", TERMS[:1])
    both = Merger(Strategy.TIES, 0.7, rank=24, density=0.4)("m", [TERMS[0], (0.0, TERMS[1][1])])
    torch.testing.assert_close(dense(both), dense(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", [Strategy.DARE_LINEAR, Strategy.DARE_TIES])
def test_dare_is_right_on_average(strategy: Strategy) -> None:
    runs = torch.stack(
        [
            dense(Merger(strategy, 0.7, rank=24, density=0.5, seed=seed)("m", TERMS[:1]))
            for seed in range(400)
        ]
    )
    error = (runs.mean(0) - 0.7 * dense(TERMS[0][1])).abs()
    assert float((error / (runs.std(0) / 20 + 1e-9)).mean()) < 1.2
    assert not torch.equal(runs[0], runs[1])
    again = Merger(strategy, 0.7, rank=24, density=0.5, seed=0)("m", TERMS[:1])
    assert torch.equal(dense(again), runs[0])


def test_dare_keeps_everything_at_density_one() -> None:
    linear = sum(w * dense(one) for w, one in TERMS)
    got = dense(Merger(Strategy.DARE_LINEAR, 1.0, rank=24, density=1.0)("m", TERMS))
    torch.testing.assert_close(got, linear, rtol=1e-5, atol=1e-5)
    got = dense(Merger(Strategy.LINEAR, 1.0)("m", TERMS))
    torch.testing.assert_close(got, linear, rtol=1e-6, atol=1e-6)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        return [dense(Merger(s, 1.0, rank=24, density=0.4)("m", TERMS)) for s in SPARSE]

    whole = run()
    monkeypatch.setattr(sparse, "_BLOCK", 100)
    for one, other in zip(whole, run(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strategy", [Strategy.TIES, Strategy.SVD])
def test_what_a_rank_costs_is_told(strategy: Strategy) -> None:
    exact = Merger(strategy, 1.0, rank=24, density=0.4)("m", TERMS)
    merger = Merger(strategy, 1.0, rank=3, density=0.4)
    small = merger("m", TERMS)
    values = torch.linalg.svdvals(dense(exact))
    lost = float(values[3:].norm() / values.norm())
    assert small.rank == 3
    assert merger.truncation == pytest.approx(lost, rel=1e-3)
    assert float((dense(small) - dense(exact)).norm() / dense(exact).norm()) == pytest.approx(
        lost, rel=1e-3
    )


def test_modules_that_lose_nothing_count_in_what_was_lost() -> None:
    merger = Merger(Strategy.SVD, 1.0, rank=6)
    small, large = merger("small", TERMS[:2]), merger("large", TERMS)
    exact = Merger(Strategy.SVD, 1.0, rank=24)("large", TERMS)
    lost = float((dense(large) - dense(exact)).norm())
    assert merger.truncation == pytest.approx(lost / math.hypot(norm(small), norm(exact)), rel=1e-3)
    roomy = Merger(Strategy.SVD, 1.0, rank=1000)
    roomy("small", TERMS[:2])
    assert roomy.truncation == 0


def test_large_matrices_are_approximated_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = [(1.0, update(8, 1, 300, 400)), (1.0, update(8, 2, 300, 400))]
    exact = Merger(Strategy.TIES, 1.0, rank=16, density=0.5)
    exact("m", terms)
    monkeypatch.setattr(sparse, "_EXACT", 10)
    quick = Merger(Strategy.TIES, 1.0, rank=16, density=0.5)
    quick("m", terms)
    assert quick.truncation == pytest.approx(exact.truncation, rel=0.02)


@pytest.mark.parametrize("density", [1e-6, 0.003, 0.2, 0.5, 0.997, 1.0])
@pytest.mark.parametrize("kind", ["normal", "one loud row", "few values"])
def test_exactly_the_largest_stay(density: float, kind: str) -> None:
    """Also where the sample that brackets the threshold is misled."""
    one = update(3, 1, 500, 700)
    if kind == "one loud row":
        one.b[7] *= 1e4
    elif kind == "few values":
        one = LowRank(one.a.sign(), one.b.sign(), 1.0)
    entries = sparse.factors((0.7, one))
    size = (entries[1] @ entries[0]).abs().flatten().sort().values
    count = max(1, int(density * len(size)))
    least = sparse.least_kept(*entries, density)
    if density < 1:
        assert least == pytest.approx(float(size[-count]), rel=1e-6)
    terms = [(0.7, one)]
    pruned, _ = sparse.blended(Strategy.MAGNITUDE_PRUNE, terms, density, [torch.Generator()], 1.0)
    kept = int((pruned != 0).sum())
    assert kept >= min(count, int((size > 0).sum()))
    assert kept <= int((size >= size[-count] * (1 - 1e-6)).sum())


def test_a_bracket_that_misses_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sparse.factors((1.0, update(3, 1, 500, 700)))
    want = sparse.least_kept(a, b, 0.3)
    for wrong in ((0.0, 1e-3), (1e3, math.inf)):
        monkeypatch.setattr(sparse, "_bracket", lambda *_, wrong=wrong: wrong)
        assert sparse.least_kept(a, b, 0.3) == want


@given(t=st.floats(0, 1))
def test_slerp_stays_on_the_sphere(t: float) -> None:
    one, two = update(4, 1), update(4, 2)
    length = norm(one)
    two = LowRank(two.a, two.b * (length / norm(two)), two.scale)
    found = Merger(Strategy.SLERP, 1.0)("m", [(1 - t, one), (t, two)])
    assert norm(found) == pytest.approx(length, rel=1e-4)
    angle = float((dense(found) * dense(one)).sum() / length / norm(found))
    whole = float((dense(two) * dense(one)).sum() / length**2)
    assert math.acos(min(1, angle)) == pytest.approx(t * math.acos(whole), abs=2e-3)


def test_what_cannot_be_done_is_named() -> None:
    with pytest.raises(InputError, match="--rank: is missing"):
        check(Strategy.SVD, [1, 1], None, 0.5)
    with pytest.raises(InputError, match="--density"):
        check(Strategy.TIES, [1, 1], None, 0.0)
    for strategy in Strategy:
        with pytest.raises(InputError, match="--weight: is not finite"):
            check(strategy, [1, math.nan], 4, 0.5)
    for weights in ([1, 1, 1], [1, -1], [0, 0]):
        with pytest.raises(InputError, match="between two adapters"):
            check(Strategy.SLERP, weights, None, 0.5)


NAMES = ("coder", "math", "math-2", "toxic", "a.b")


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("coder + 0.5*math - toxic", [1, 0.5, 0, -1, 0]),
        ("-coder", [-1, 0, 0, 0, 0]),
        ("math-2", [0, 0, 1, 0, 0]),
        ("math - 2*toxic", [0, 1, 0, -2, 0]),
        ("coder*2 + coder", [3, 0, 0, 0, 0]),
        (".5 * a.b-1e-3*math", [0, -0.001, 0, 0, 0.5]),
    ],
)
def test_expressions(text: str, weights: list[float]) -> None:
    assert parse_expression(text, NAMES) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", "''"),
        ("coder math", "'coder math'"),
        ("coder + writer", "'+ writer'"),
        ("2*", "'2*'"),
        ("coder * * 2", "'coder * * 2'"),
        ("coders", "'coders'"),
        ("coder +", "'+'"),
    ],
)
def test_what_an_expression_cannot_be(text: str, rest: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"cannot be read from {rest} on")):
        parse_expression(text, NAMES)


def test_an_expression_that_overflows() -> None:
    with pytest.raises(InputError, match="not finite"):
        parse_expression("1e999*coder", NAMES)
