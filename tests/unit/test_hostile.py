"""Every attack by its name, in every string of every document that we write.

An attack is stopped when the page that GitHub's parser and sanitiser make of a document has the
same elements as for a harmless string of that shape, when no text outside code is anything that
GitHub's filters act on, and when nothing in it is invisible.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import render
from adapterbot.errors import InputError
from adapterbot.marker import key_of
from adapterbot.mole.routes import routes_page
from adapterbot.pages import charts, inert
from adapterbot.pr import render as pulls
from adapterbot.pr.inputs import read_deltas, read_samples
from adapterbot.pr.jsonfile import whole
from adapterbot.records.routes import Routes, TokenRoute
from adapterbot.report import html
from scripts.comment_picture import github_html
from tests.golden.attacks import ATTACKS
from tests.golden.everywhere import FREE_IN_PULLS, VARIANTS, beside, pull_with_text, with_text
from tests.golden.github_view import (
    Page,
    assert_dead,
    assert_nothing_hidden,
    documents,
    harmless,
    hostile_text,
)
from tests.unit.test_charts import ONE_CHART


@cache
def whole_reports(text: str) -> list[Any]:
    return [with_text(variant, None, text) for variant in (0, 1, 2)]


def every_comment(text: str) -> list[str]:
    return [render.comment(report, report.adapters[0]) for report in whole_reports(text)]


def every_summary(text: str) -> list[str]:
    return [render.summary(report) for report in whole_reports(text)]


def progress(text: str) -> list[str]:
    return [render.progress("dates", text, 0.4, detail=text, head_sha=text)]


def every_pull(text: str) -> list[str]:
    found = [pull_with_text(variant, None, text) for variant in range(3)]
    return [pulls.body(pull, "pr:dates", titled=True) for pull in found]


def every_pull_file(text: str) -> list[str]:
    return [pulls.markdown(pull_with_text(variant, None, text)) for variant in range(3)]


def a_chart(text: str) -> list[str]:
    return [charts.bars(text, [(text, 1.0), ("b", 2.0)], axis=text)]


SURFACES: dict[str, Callable[[str], list[str]]] = {
    "the comment": every_comment,
    "the summary": every_summary,
    "the progress comment": progress,
    "the pull request": every_pull,
    "the pull request's file": every_pull_file,
    "a chart": a_chart,
}
# What a record holds of a line or a name is bounded; the bounds themselves are tested elsewhere.
FITS = 150


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_as_text(attack: str, surface: str) -> None:
    text = ATTACKS[attack][:FITS]
    for hostile, plain in zip(
        SURFACES[surface](text), SURFACES[surface](harmless(text)), strict=True
    ):
        shown, expected = Page(github_html(hostile)), Page(github_html(plain))
        if surface == "a chart":
            assert ONE_CHART.fullmatch(hostile)
        assert shown.elements == expected.elements
        assert_dead(shown.plain)
        assert_nothing_hidden(shown.everything)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_as_text_on_the_page(attack: str) -> None:
    text = ATTACKS[attack][:FITS]
    dull = harmless(text)
    for hostile, plain in zip(whole_reports(text), whole_reports(dull), strict=True):
        shown = Page(html(hostile, beside(text)))
        assert names(shown) == names(Page(html(plain, beside(dull))))
        assert_nothing_hidden(shown.everything)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_as_text_on_the_page_of_routes(attack: str) -> None:
    def page(text: str) -> Page:
        token = TokenRoute(token=text, written=True, weights=((0.5, 0.5),))
        return Page(routes_page(Routes(experts=(text, "b"), layers=(0,), tokens=(token, token))))

    text = ATTACKS[attack][:FITS]
    shown = page(text)
    assert names(shown) == names(page(harmless(text)))
    assert_nothing_hidden(shown.everything)


def names(page: Page) -> list[Any]:
    """The elements with the names of their attributes: a label may quote a string."""
    return [
        (e[0], [name for name, _ in e[1]]) if isinstance(e[1], list) else e for e in page.elements
    ]


# ---------------------------------------------------------------- pull requests, field by field

anything = hostile_text.filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text))
somewhere = st.one_of(
    st.sampled_from([(v, path) for v, paths in FREE_IN_PULLS.items() for path in paths]),
    st.sampled_from([(v, None) for v in FREE_IN_PULLS]),
)


@documents
@given(somewhere, anything)
def test_a_pull_request_shows_text_and_code_only(
    where: tuple[int, tuple[Any, ...] | None], text: str
) -> None:
    shown, plain = (
        Page(github_html(pulls.body(pull_with_text(*where, each), "pr:dates", titled=True)))
        for each in (text, harmless(text))
    )
    assert shown.elements == plain.elements
    assert_dead(shown.plain)
    assert_nothing_hidden(shown.everything)


@documents
@given(anything, anything)
def test_no_string_ends_our_part_of_a_body_early(one: str, two: str) -> None:
    ours = pulls.body(pull_with_text(0, None, one), "pr:dates", titled=False)
    newer = pulls.body(pull_with_text(0, None, two), "pr:dates", titled=False)
    assert key_of(ours) == "pr:dates"
    assert pulls.merged_body(newer, f"before\n{ours}after") == f"before\n{newer}after"


# ---------------------------------------------------------------- commit messages

DEAD_IN_A_MESSAGE = r"[@#]|gh-\d|\b[a-z]+-\d|://|www\.|(?<![0-9a-z])[0-9a-f]{7,40}(?![0-9a-z])"


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_dead_in_a_commit_message(attack: str) -> None:
    import re

    line = inert.plain(ATTACKS[attack])
    assert "\n" not in line
    assert not re.search(DEAD_IN_A_MESSAGE, line, re.IGNORECASE | re.ASCII), line
    assert_nothing_hidden(line)


@documents
@given(hostile_text)
def test_a_commit_message_links_nothing(text: str) -> None:
    import re

    line = inert.plain(text)
    assert not re.search(DEAD_IN_A_MESSAGE, line, re.IGNORECASE | re.ASCII), line


# ---------------------------------------------------------------- files

SAMPLE = '[{"prompt": "%s", "baseline_output": "b", "candidate_output": "c"}]'


def test_ten_megabytes_on_one_line_are_refused_by_size_and_quickly(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(SAMPLE % ("x" * 10_000_000))
    start = time.process_time()
    with pytest.raises(InputError, match="10,000,000 characters"):
        read_samples(path, "a")
    path.write_text(json.dumps([{"metric": "m" * 10_000_000, "baseline": 1}]))
    with pytest.raises(InputError, match="10,000,000 characters"):
        read_deltas(path, "a")
    assert len(inert.text("`" * 10_000_000)) < 10_000
    assert len(inert.plain("@" * 10_000_000)) < 10_000
    assert len(inert.code("\u202e" * 10_000_000)) < 10_000
    assert time.process_time() - start < 20


def test_invalid_utf8_is_refused_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes((SAMPLE % "X").encode().replace(b"X", b"\xc3\x28"))
    with pytest.raises(InputError, match="is not UTF-8 at byte 13"):
        read_samples(path, "a")


def test_lone_surrogates_are_shown_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(SAMPLE % "\\ud800x\\udfff")
    (sample,) = read_samples(path, "a")
    assert sample.prompt == "\ufffdx\ufffd"
    sample.prompt.encode()
    # Strings that never were in a file, such as names of files that are not UTF-8.
    for shown in (inert.text("\ud800"), inert.cell("\udcff"), inert.plain("\udcff")):
        shown.encode()


@given(st.text(st.characters(codec=None, categories=["Cs", "Ll", "So"])))  # type: ignore[arg-type]
def test_text_is_made_whole_and_nothing_else_of_it_changes(text: str) -> None:
    made = whole(text)
    made.encode()
    if all(not 0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert made == text


def test_all_templates_are_under_attack_here() -> None:
    """A template that nobody attacks is a door that nobody tried."""
    folder = Path(render.__file__).parent / "templates"
    attacked = {
        "bare.md", "bisect.md", "changes.md", "decided.md", "footer.md", "lock.md", "metrics.md",
        "probes.md", "problem.md", "progress.md", "pull.md", "samples.md", "section.md",
        "shares.md", "summary.md", "page.html", "report.html", "routes.html",
        *(f"report/{part}.html" for part in (
            "adapter", "bisect", "changes", "history", "lock", "merge", "metrics", "parts",
            "routing", "run", "samples", "shares",
        )),
        "report/curves.svg",
    }  # fmt: skip
    assert {
        path.relative_to(folder).as_posix().removesuffix(".j2") for path in folder.rglob("*.j2")
    } == attacked


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_as_text_in_the_shortest_comment(attack: str) -> None:
    for variant in VARIANTS:
        report = with_text(variant, None, ATTACKS[attack][:FITS])
        # Long enough for the headline alone.
        body = render.comment(report, report.adapters[0], limit=6_000)
        shown = Page(github_html(body))
        assert_dead(shown.plain)
        assert_nothing_hidden(shown.everything)
