"""Draws are draws from the softmax, and nothing but logits, seed, sample and step decides them."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from adapterbot.eval.questions import noise_key
from adapterbot.eval.sampling import GREEDY, NONE, Choice, gumbel, next_tokens


def keys(count: int) -> torch.Tensor:
    return torch.tensor([noise_key(0, "t", str(i)) for i in range(count)])


def test_noise_is_gumbel_in_both_directions() -> None:
    noise = gumbel(keys(400), 500).double()
    assert stats.kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 1e-3
    assert abs(torch.corrcoef(noise)[0, 1:].mean()) < 0.01
    assert abs(torch.corrcoef(noise.T)[0, 1:].mean()) < 0.01
    assert torch.isfinite(noise).all()


def test_noise_is_a_pure_function_of_key_and_position() -> None:
    whole = gumbel(keys(5), 100)
    assert torch.equal(gumbel(keys(5)[2:3], 40), whole[2:3, :40])
    assert torch.equal(gumbel(keys(5), 100), whole)


def test_keys_differ_by_every_part() -> None:
    assert len({noise_key(0, "a", "b"), noise_key(1, "a", "b"), noise_key(0, "b", "b")}) == 3
    assert noise_key(0, "a", "bc") != noise_key(0, "ab", "c")


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)])
def test_draws_follow_the_distribution(temperature: float, top_p: float) -> None:
    count = 8000
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -4.0])
    drawn = next_tokens(
        logits.expand(count, -1),
        [Choice(temperature, top_p, noise_key(0, "t", str(i))) for i in range(count)],
        [i % 7 for i in range(count)],
    )
    wanted = (logits.double() / temperature).softmax(-1)
    # The nucleus by its definition: the fewest likeliest tokens whose mass reaches top_p.
    size = int((wanted.cumsum(-1) < top_p - 1e-9).sum()) + 1
    wanted = torch.where(torch.arange(6) < size, wanted, 0.0)
    wanted = wanted / wanted.sum() * count
    found = torch.bincount(torch.tensor(drawn), minlength=6).double()
    assert found[size:].sum() == 0
    if size > 1:
        assert stats.chisquare(found[:size], wanted[:size]).pvalue > 1e-3


def test_rows_do_not_influence_each_other() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 50)
    choices = [
        GREEDY,
        Choice(1.0, 0.9, 5),
        Choice(0.7, 1.0, 6),
        GREEDY,
        Choice(1.0, 1.0, 7),
        GREEDY,
    ]
    steps = [0, 3, 1, 2, 9, 4]
    together = next_tokens(logits, choices, steps)
    alone = [next_tokens(logits[i : i + 1], [choices[i]], [steps[i]])[0] for i in range(6)]
    assert together == alone
    assert [together[i] for i in (0, 3, 5)] == logits[[0, 3, 5]].argmax(-1).tolist()


def test_shared_noise_makes_like_models_say_like_things() -> None:
    torch.manual_seed(0)
    first = torch.randn(2000, 30)
    second = first + 0.05 * torch.randn(2000, 30)
    mine = [Choice(1.0, 1.0, noise_key(0, "t", str(i))) for i in range(2000)]
    steps = [0] * 2000
    same = sum(
        a == b
        for a, b in zip(
            next_tokens(first, mine, steps), next_tokens(second, mine, steps), strict=True
        )
    )
    assert same > 1900


@pytest.mark.parametrize("choice", [GREEDY, Choice(1.0, 1.0, 7), Choice(0.7, 0.9, 7)])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_choose_no_token(choice: Choice, broken: float) -> None:
    logits = torch.randn(4, 50)
    logits[1, 30] = broken
    logits[2] = torch.nan
    logits[3, 10:] = -torch.inf  # a token that the model rules out
    tokens = next_tokens(logits, [choice] * 4, [0] * 4)
    assert tokens[1:3] == [NONE, NONE]
    assert 0 <= tokens[0] < 50
    assert 0 <= tokens[3] < 10


@pytest.mark.parametrize(
    "choice", [Choice(1e-300), Choice(5e-324), Choice(1e-38), Choice(1, 1e-300)]
)
def test_what_is_too_small_for_fp32_is_the_likeliest_token_and_not_the_first(
    choice: Choice,
) -> None:
    """Attack, or a client's way to say greedy: logits/T is infinite, or nothing is in the nucleus,
    and the answer is the vocabulary's first token over and over."""
    assert next_tokens(torch.tensor([[0.5, 3.0, -2.0, 2.9]]), [choice], [0]) == [1]
