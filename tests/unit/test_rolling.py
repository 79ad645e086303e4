"""The windows of a long text are lm-eval's, and hold every token once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from adapterbot.eval.rolling import windows


@given(st.integers(0, 60), st.integers(1, 25))
def test_windows_are_those_of_lm_eval(count: int, length: int) -> None:
    tokens = tuple(range(1, count + 1))
    theirs = [
        make_disjoint_window(pair)
        for pair in get_rolling_token_windows(list(tokens), 0, length, context_len=1)
    ]
    ours = list(windows(tokens, 0, length))
    assert ours == [(tuple(context), tuple(rest)) for context, rest in theirs]
    assert sum((rest for _, rest in ours), ()) == tokens
    assert all(len(context) + len(rest) - 1 <= length for context, rest in ours)
