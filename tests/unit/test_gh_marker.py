"""The hidden first line: what counts as ours, and which forgeries do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.marker import key_of, marker

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
