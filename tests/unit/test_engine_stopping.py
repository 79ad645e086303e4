"""Stop strings are found when their last token is written, with few looks at the text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.eval.stopping import Stopping

# Bytes as tokens, and some of two bytes: characters may lie across them.
PAIRS = {256: b"\n\n", 257: b" a", 258: b"a\n", 259: "é".encode()[1:] + b"a"}


def text(ids: tuple[int, ...]) -> str:
    return b"".join(PAIRS.get(token, bytes([token % 256])) for token in ids).decode(
        "utf-8", "replace"
    )


TOKENS = st.sampled_from([*b" a\nb", *"é".encode(), *PAIRS])
STOPS = st.sampled_from(["\n", "\n\n", "a", " ", "b a", "é", "éa", "a\n"])


@settings(max_examples=500)
@given(st.lists(TOKENS, min_size=1, max_size=12), st.lists(STOPS, max_size=3))
def test_an_answer_stops_where_its_text_first_has_a_stop_string(
    answer: list[int], stop: list[str]
) -> None:
    stopping = Stopping(text)
    for size in range(1, len(answer) + 1):
        want = any(string in text(tuple(answer[:size])) for string in stop)
        assert stopping.stopped(answer[:size], stop) is want
        if want:
            break


def test_a_token_that_ends_nothing_is_looked_at_once() -> None:
    asked: list[tuple[int, ...]] = []

    def counted(ids: tuple[int, ...]) -> str:
        asked.append(ids)
        return text(ids)

    stopping = Stopping(counted)
    answer = list(b"abba" * 50)
    assert not any(stopping.stopped(answer[:size], ["\n"]) for size in range(1, 201))
    assert asked == [(97,), (98,)]
