"""An answer's text as its tokens come: characters whole, stop strings never shown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.bank.serve.jobs import Ask, Job, Piece

EOS = 256


def job(
    limit: int = 100, stop: tuple[str, ...] = (), *, streamed: bool = True
) -> tuple[Job, list[Piece]]:
    """Bytes are tokens."""
    pieces: list[Piece] = []
    ask = Ask((1,), None, limit, stop)
    made = Job(
        ask,
        pieces.append,
        lambda ids: bytes(ids).decode("utf-8", "replace"),
        frozenset({EOS}),
        deadline=1e18,
        account=ask.who,
        streamed=streamed,
    )
    return made, pieces


def feed(made: Job, tokens: list[int]) -> None:
    for token in tokens:
        if not made.ended:
            made.take(token)


@given(text=st.text(min_size=1, max_size=30))
@settings(max_examples=100)
def test_pieces_make_the_text_and_no_piece_is_half_a_character(text: str) -> None:
    made, pieces = job()
    feed(made, [*text.encode(), EOS])
    assert "".join(piece.text for piece in pieces) == text
    assert pieces[-1].finish == "stop"
    if "�" not in text:
        assert not any("�" in piece.text for piece in pieces)


@given(
    text=st.text(alphabet="abé", max_size=30),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3),
    limit=st.integers(1, 40),
)
@settings(max_examples=200)
def test_an_answer_that_is_not_streamed_is_the_one_that_is(
    text: str, stops: list[str], limit: int
) -> None:
    made = [job(limit, tuple(stops), streamed=streamed) for streamed in (True, False)]
    for one, _ in made:
        feed(one, [*text.encode(), EOS])
    (_, streamed), (_, whole) = made
    assert "".join(piece.text for piece in whole) == "".join(piece.text for piece in streamed)
    assert whole[-1].finish == streamed[-1].finish
    assert stops or len(whole) == 1, "nobody is woken for a text that nobody reads yet"


@given(
    text=st.text(alphabet="abé", max_size=30),
    stops=st.lists(st.text(alphabet="abé", min_size=1, max_size=4), min_size=1, max_size=3),
)
@settings(max_examples=200)
def test_nothing_of_a_stop_string_is_ever_shown(text: str, stops: list[str]) -> None:
    made, pieces = job(stop=tuple(stops))
    feed(made, [*text.encode(), EOS])
    # The first to be complete ends it, as tokens come one by one.
    ends = [(at + len(s), at) for s in stops if (at := text.find(s)) >= 0]
    if not ends:
        assert "".join(piece.text for piece in pieces) == text
        return
    shown = "".join(piece.text for piece in pieces)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert len(shown) == min(at for end, at in ends if end == min(ends)[0])


def test_the_limit_ends_an_answer_with_what_there_is() -> None:
    made, pieces = job(limit=3, stop=("abcd",))
    feed(made, list(b"abcd"))
    assert [piece.text for piece in pieces] == ["abc"]
    assert pieces[-1].finish == "length"


@pytest.mark.parametrize("error", [ValueError("x")])
def test_an_end_comes_once(error: Exception) -> None:
    made, pieces = job()
    feed(made, [97, EOS])
    made.fail(error)
    assert [piece.error for piece in pieces] == [None, None]


def test_a_token_that_is_none_is_an_error_and_no_text() -> None:
    made, pieces = job()
    feed(made, [*b"so far", -1, *b"never"])
    assert made.ended
    assert isinstance(pieces[-1].error, ArithmeticError)
    assert b"".join(piece.text.encode() for piece in pieces) == b"so far"
