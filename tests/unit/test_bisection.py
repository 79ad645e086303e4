"""Classic bisection: every position, the bound on probes, and skips."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.bisect import Answer, Bisection


def search(n: int, first_bad: int, skipped: frozenset[int] = frozenset()) -> tuple[Bisection, int]:
    bisection, probes = Bisection(n), 0
    while (index := bisection.ask()) is not None:
        probes += 1
        assert probes <= n, "asks for ever"
        if index in skipped:
            bisection.tell(index, Answer.SKIPPED)
        else:
            bisection.tell(index, Answer.BAD if index >= first_bad else Answer.GOOD)
    return bisection, probes


def test_every_position_up_to_257_within_the_bound() -> None:
    for n in range(1, 258):
        bound = 2 + math.ceil(math.log2(max(n - 1, 1)))
        for first_bad in range(n + 1):
            bisection, probes = search(n, first_bad)
            assert list(bisection.first_bad) == ([first_bad] if first_bad < n else [])
            assert probes <= bound


@given(st.data())
def test_4096_checkpoints_within_the_bound(data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, 4096))
    assert search(4096, first_bad)[1] <= 2 + 12


@given(st.integers(1, 40), st.data())
def test_skips_widen_the_answer_but_never_make_it_wrong(n: int, data: st.DataObject) -> None:
    first_bad = data.draw(st.integers(0, n))
    skipped = frozenset(data.draw(st.sets(st.integers(0, n - 1))))
    bisection, _ = search(n, first_bad, skipped)
    if first_bad < n and bisection.bad < n:
        assert first_bad in bisection.first_bad
        # Every suspect but the last is one that could not be evaluated.
        assert all(i in skipped for i in bisection.first_bad[:-1])


def test_contradictions_are_refused() -> None:
    bisection = Bisection(5)
    bisection.tell(3, Answer.BAD)
    with pytest.raises(ValueError, match="4 is good"):
        bisection.tell(4, Answer.GOOD)
    bisection.tell(1, Answer.GOOD)
    with pytest.raises(ValueError, match="0 is bad"):
        bisection.tell(0, Answer.BAD)
    with pytest.raises(ValueError, match="outside"):
        bisection.tell(5, Answer.GOOD)
    with pytest.raises(ValueError, match="nothing"):
        Bisection(0)
