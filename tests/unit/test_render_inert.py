"""No string of a report becomes anything but text or code in what GitHub shows.

Every free string field of a full report is given hostile text; the page that cmark-gfm and the
sanitiser make of the comment must have the same elements as for a harmless string of equal length
and equal line breaks, and the text outside code must hold nothing that GitHub's filters turn into
a mention, a reference, a link, an emoji or math.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import render
from adapterbot.marker import key_of
from adapterbot.report import html
from scripts.comment_picture import github_html
from tests.golden.everywhere import FREE, FULL, VARIANTS, strings, with_text
from tests.golden.github_view import (
    ATTACKS,
    Page,
    assert_dead,
    assert_nothing_hidden,
    documents,
    harmless,
    hostile_text,
)
from tests.golden.reports import HOSTILE


def test_every_free_string_is_under_test() -> None:
    closed = {
        "key",
        "head_sha",
        "commit",
        "direction",
        "unit",
        "outcome",
        "standing",
        "status",
        "verdict",
    }
    for variant in VARIANTS:
        bound = {path[-1] for path, _ in strings(FULL[variant])} - {
            path[-1] for path in FREE[variant]
        }
        assert bound <= closed | {"kind"}


@cache
def page_of(variant: int, chosen: tuple[Any, ...] | None, text: str) -> Page:
    report = with_text(variant, chosen, text)
    body = render.comment(report, report.adapters[0])
    assert key_of(body) == "dates"
    body.encode()
    return Page(github_html(body))


@cache
def summary_of(variant: int, text: str) -> Page:
    return Page(github_html(render.summary(with_text(variant, None, text))))


anything = hostile_text.filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text))
somewhere = st.sampled_from([(v, path) for v in VARIANTS for path in FREE[v]])
anywhere = st.one_of(somewhere, st.sampled_from([(v, None) for v in VARIANTS]))


# ---------------------------------------------------------------- the properties


def check_inert(variant: int, chosen: tuple[Any, ...] | None, text: str) -> None:
    shown = page_of(variant, chosen, text)
    assert shown.elements == page_of(variant, chosen, harmless(text)).elements
    assert_dead(shown.plain)
    assert_nothing_hidden(shown.everything)


@documents
@given(anywhere, anything)
def test_a_comment_shows_text_and_code_only(
    where: tuple[int, tuple[Any, ...] | None], text: str
) -> None:
    check_inert(*where, text)


@pytest.mark.parametrize(
    ("variant", "text"),
    [(i % 6, text[:90]) for i, text in enumerate((*ATTACKS, *HOSTILE))],
)
def test_each_attack_in_every_field(variant: int, text: str) -> None:
    check_inert(variant, None, text)
    check_inert(variant, None, f"a {text} b {text}")


@documents
@given(st.sampled_from(VARIANTS), anything)
def test_a_summary_shows_text_and_code_only(variant: int, text: str) -> None:
    shown = summary_of(variant, text)
    assert shown.elements == summary_of(variant, harmless(text)).elements
    assert_dead(shown.plain)


@documents
@given(anywhere, anything)
def test_html_shows_text_only(where: tuple[int, tuple[Any, ...] | None], text: str) -> None:
    shown = Page(html(with_text(*where, text)))
    assert shown.elements == Page(html(with_text(*where, harmless(text)))).elements
    assert_nothing_hidden(shown.everything)


@documents
@given(anything, anything)
def test_progress_shows_text_and_code_only(name: str, text: str) -> None:
    def body(name: str, text: str) -> Page:
        return Page(github_html(render.progress("dates", name, 0.4, detail=text, head_sha=text)))

    shown = body(name, text)
    assert shown.elements == body(harmless(name), harmless(text)).elements
    assert_dead(shown.plain)
