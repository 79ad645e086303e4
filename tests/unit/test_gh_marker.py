"""The hidden first line: what counts as ours, and which forgeries do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.marker import UNSTAMPED, Stamp, key_of, marker

KEYS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,99}", fullmatch=True)


@given(KEYS, st.text())
def test_a_marker_is_found_again_whatever_follows(key, rest):
    assert key_of(f"{marker(key)}\n{rest}") == key
    assert key_of(f"{marker(key)}\r\n{rest}") == key


@pytest.mark.parametrize("key", ["", "Dates", "a b", "a-->", "-a", "a\n", "a" * 101, "é"])
def test_a_key_that_could_end_the_html_comment_is_refused(key):
    with pytest.raises(InputError, match="is not an adapter key"):
        marker(key)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello\n<!-- adapterbot:dates -->",  # quoted further down
        "> <!-- adapterbot:dates -->",  # a reply that quotes us
        "see <!-- adapterbot:dates --> above",
        "<!-- adapterbot:dates --> <!-- adapterbot:other -->",
        "<!-- adapterbot:Dates -->",
        "<!-- adapterbot: -->",
        "\n<!-- adapterbot:dates -->",
    ],
    ids=repr,
)
def test_a_marker_anywhere_but_alone_on_the_first_line_is_not_ours(body):
    assert key_of(body) is None


@pytest.mark.parametrize(
    ("one", "other", "before", "level"),
    [
        (Stamp(7, 1, "a"), Stamp(8, 1, "b"), True, False),
        (Stamp(8, 1, "a"), Stamp(7, 1, "b"), False, False),
        # About one commit neither run is the better one, nor are two attempts of one run.
        (Stamp(7, 1, "a"), Stamp(8, 1, "a"), False, True),
        (Stamp(7, 1, "a"), Stamp(7, 2, "b"), False, True),
        (Stamp(7, 1, "a"), Stamp(7, 1, "a"), False, False),
        # Where no run stands behind a comment, it is before nothing, and level with its like alone.
        (UNSTAMPED, Stamp(7, 1, "a"), False, False),
        (Stamp(7, 1, "a"), UNSTAMPED, False, False),
        (UNSTAMPED, UNSTAMPED, False, True),
    ],
)
def test_runs_order_what_they_wrote_about_different_commits(one, other, before, level):
    assert (one.before(other), one.level(other)) == (before, level)


HEADS = st.from_regex("[0-9a-f]{40}|", fullmatch=True)


@given(st.integers(1, 10**18 - 1), st.integers(1, 99), HEADS)
def test_a_stamp_is_read_as_it_was_written(run, attempt, head):
    body = f"{marker('dates')}\nhello"
    stamp = Stamp(run, attempt, head)
    assert Stamp.of(stamp.on(body)) == stamp
    assert key_of(stamp.on(body)) == "dates"


@pytest.mark.parametrize("body", ["", marker("dates"), f"{marker('dates')}\nhello"])
def test_what_no_run_wrote_has_no_stamp(body):
    assert Stamp.of(body) == UNSTAMPED
    assert UNSTAMPED.on(body) == body
