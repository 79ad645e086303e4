"""Single filters: what was said can still be read, and nothing else happens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from adapterbot.pages import inert, templating
from adapterbot.pages.inert import Inert
from scripts.comment_picture import github_html
from tests.golden.github_view import Page, assert_dead, fragments, hostile_text

# ---------------------------------------------------------------- nothing is eaten


HOSTS: dict[str, str] = {
    "paragraph": "{}\n",
    "heading": "### ✅ Passed: {}\n",
    "item": "- {}\n",
    "bold": "**Broke at {}** (so)\n",
    "cell": "| a | b |\n|--|--|\n| {} | z |\n",
}


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@fragments
@given(hostile_text, st.sampled_from(sorted(HOSTS)), st.sampled_from([inert.code, inert.text]))
@example("`lfs: true` and `git lfs pull`", "paragraph", inert.text)
@example("a\\|b", "cell", inert.code)
@example("`a``b` (`c`). `d`@e", "paragraph", inert.text)
def test_what_was_said_can_be_read(text: str, host: str, escape: Callable[[object], Inert]) -> None:
    if host == "cell" and escape is inert.code:
        escape = inert.cell
    in_code = escape is not inert.text
    if host == "bold" and not in_code:
        return  # running text never stands beside Markdown of ours
    page = Page(github_html(HOSTS[host].format(escape(text))))
    frame = Page(github_html(HOSTS[host].format("xyz")))
    assert page.elements == frame.elements
    seen = inert.visible(text, in_code=in_code)
    nothing = seen.replace(" ", "␣") if in_code else "(empty)"
    expected = squeezed(seen) or nothing
    if expected.count("`") > 40:
        return  # a wall of backticks is counted instead of shown
    frame_text = squeezed(frame.everything).split("xyz")
    read = squeezed(page.everything)
    if in_code:
        assert read == squeezed(frame_text[0] + expected + frame_text[1])
    else:
        # Backticks that quote become the code that they ask for.
        assert read.replace("`", "").replace(" ", "") == (
            (frame_text[0] + expected + frame_text[1]).replace("`", "").replace(" ", "")
        )


@fragments
@given(hostile_text)
def test_a_block_keeps_every_line(text: str) -> None:
    page = Page(github_html(f"before\n\n{inert.block(text)}\n\nafter\n"))
    assert [e for e in page.elements if e != "/p" and e[0] != "p"] == [("pre", []), "/pre"]
    if "`" * 60 in text:
        return
    shown = page.everything.removeprefix("before\n").removesuffix("\nafter\n")
    wanted = [inert.visible(x, in_code=True) for x in text.replace("\r\n", "\n").split("\n")]
    assert shown.replace("\n", "") == "".join(wanted)
    assert shown.count("\n") >= len(wanted)


# ---------------------------------------------------------------- single facts


def test_attack_whatever_unicode_says_is_not_drawn_is_spelled_out() -> None:
    """Against the standard's own list, in the tables of another library."""
    every = "".join(map(chr, range(0x110000)))
    ignorable = regex.findall(r"\p{Default_Ignorable_Code_Point}", every)
    assert len(ignorable) > 4000
    for char in ignorable:
        assert inert.visible(f"a{char}b") == f"a⟨U+{ord(char):04X}⟩b"


def test_lone_surrogates_and_bytes_that_are_no_text() -> None:
    assert inert.text("a\ud800b") == "a⟨U+D800⟩b"
    assert inert.cell("\udfff") == "`⟨U+DFFF⟩`"


def test_emoji_keep_their_selector_and_letters_do_not() -> None:
    assert inert.visible("⚠\ufe0f a\ufe0f") == "⚠\ufe0f a⟨U+FE0F⟩"


@pytest.mark.parametrize("make", [inert.text, inert.code, inert.cell, inert.block])
@pytest.mark.parametrize("unit", ["a", "`", "|", "\u202e", "@a ", "\n", "```\n", "\u0301", "1"])
def test_ten_megabytes_on_one_line_cost_nothing(make: Callable[[str], Inert], unit: str) -> None:
    text = unit * (10_000_000 // len(unit))
    start = time.process_time()
    assert len(make(text).encode()) < 64_000
    assert time.process_time() - start < 5  # what reads it all character by character takes longer


def test_a_fence_is_never_longer_than_cmark_counts() -> None:
    both = "`" * 300 + "\n" + "~" * 400 + "\n</details>"
    page = Page(github_html(f"{inert.block(both)}\n\nafter\n"))
    assert page.elements == [("pre", []), "/pre", ("p", []), "/p"]
    assert inert.block(both).startswith("`" * 60) or "×" in inert.block(both)


def test_a_code_span_survives_every_run_of_backticks() -> None:
    every = " ".join("`" * n for n in range(1, 20))
    assert "⟨U+0060⟩" in inert.code(every)


def test_a_forgotten_filter_costs_looks_and_not_safety() -> None:
    template = templating.markdown().from_string("{{ x }} {{ x ~ y }} {{ none }}")
    out = template.render(x="<b> @acme |", y=inert.code("z"), none=None)
    assert Page(github_html(out)).elements == [("p", []), "/p"]
    assert_dead(Page(github_html(out)).plain)
    assert out.endswith("–")


def test_no_filter_of_jinja_turns_the_escaping_off() -> None:
    assert {"safe", "escape", "forceescape"}.isdisjoint(templating.markdown().filters)
    assert {"safe", "forceescape"}.isdisjoint(templating.web().filters)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://a b",
        "https://a/)(x",
        "https://a/>x",
        "//a",
        "https://a\n/b",
        "",
    ],
)
def test_an_odd_address_is_not_linked(url: str) -> None:
    assert inert.link(url, "run") == "run"


def test_an_address_is_linked() -> None:
    assert inert.link("https://ghes.example:8443/a/b?c=1#d", "run") == (
        "[run](<https://ghes.example:8443/a/b?c=1#d>)"
    )
