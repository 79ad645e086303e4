"""Charts say what they were given, and no label of theirs says more than text."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adapterbot.pages import charts
from scripts.comment_picture import github_html
from tests.golden.github_view import ATTACKS, Page, fragments, hostile_text

# What Mermaid 11 understands inside a string, each checked against its parser: the end of the
# string, entity codes, Markdown strings, directives and comments, statements, HTML, math, icons.
MERMAID_ATTACKS = [
    'x"]\n    bar [999]\n    title "forged',
    '"',
    "#quot;",
    "#35;",
    "`**bold**`",
    '%%{init: {"securityLevel": "loose"}}%%',
    "%% comment",
    "; click a href \"javascript:alert(1)\"",
    "<img src=x onerror=alert(1)>",
    "$$\\href{https://evil.example}{x}$$",
    "fa:fa-car",
    "```\n\n@acme/team\n```mermaid",
    "]]>",
    "\\",
    "---\nconfig:\n  theme: forest\n---",
]  # fmt: skip
ONE_CHART = re.compile(
    r'```mermaid\nxychart-beta\n    title "[^"\n]+"\n    x-axis \["[^"\n]+"(?:, "[^"\n]+")*\]\n'
    r'    y-axis "[^"\n]+"(?: [-0-9.]+ --> [-0-9.]+)?\n    bar \[[-0-9., ]+\]\n```'
)


def check(text: str) -> None:
    chart = charts.bars(text, [(text, 1.0), ("b", -2.5)], axis=text, low=0, high=1)
    assert ONE_CHART.fullmatch(chart)
    inside = "".join(re.findall('"([^"]*)"', chart))
    # What is left of ASCII are letters, digits, our separators and six signs without a meaning.
    assert all(c.isalnum() or c in " -._/+" for c in inside if c.isascii()), inside
    page = Page(github_html(chart))
    assert [e[0] for e in page.elements if isinstance(e, tuple)] == ["pre"]
    assert page.plain.strip("\0\n") == ""


@fragments
@given(hostile_text)
def test_a_chart_is_one_chart_whatever_its_labels_hold(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", [*MERMAID_ATTACKS, *ATTACKS])
def test_no_label_speaks_mermaid(text: str) -> None:
    check(text)
    check(f"a{text}b")


def test_a_label_reads_as_what_it_was() -> None:
    assert charts.label("checkpoint-0110") == "checkpoint-0110"
    assert charts.label('100 % of "x"') == "100 ％ of ＂x＂"
    assert charts.label("") == "–"
    assert len(charts.label("x" * 10_000_000)) <= charts.LABEL_LIMIT


def test_ten_megabytes_in_a_label_cost_nothing() -> None:
    assert len(charts.bars("x" * 10**7, [("`" * 10**7, 1.0)], axis="\u202e" * 10**7)) < 2000


def test_figures_are_written_without_an_exponent() -> None:
    chart = charts.bars("t", [("a", 1.5e-5), ("b", -1e-9), ("c", 3e20), ("d", 0.25)], axis="p")
    assert "bar [0.000015, 0, 300000000000000000000, 0.25]" in chart


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_never_drawn_as_zero(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        charts.bars("t", [("a", value)], axis="p")
    assert charts.sparkline([0.0, value, 1.0]) == "▁·█"


def test_many_points_keep_their_peaks() -> None:
    points = [(f"c{i}", 0.97 if i == 617 else 0.0001) for i in range(1000)]
    chart = charts.bars("t", points, axis="p")
    assert '"c617"' in chart
    assert "0.97" in chart
    assert chart.count('"c') <= charts.MOST_POINTS


def test_sparklines() -> None:
    assert charts.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert charts.sparkline([0.5, None, 0.5]) == "▅·▅"
    assert charts.sparkline([0.0, 0.5, 1.0], low=0, high=2) == "▁▃▅"
    assert charts.sparkline([None, None]) == "··"
    assert charts.sparkline([]) == ""


@fragments
@given(st.lists(st.one_of(st.none(), st.floats()), max_size=20))
@example([1e305, -1.7e308])  # attack: figures so far apart that their distance is infinite
def test_a_sparkline_has_one_sign_a_value(values: list[float | None]) -> None:
    line = charts.sparkline(values)
    assert len(line) == len(values)
    assert set(line) <= set("▁▂▃▄▅▆▇█·")
