"""What a reader with a phone, a screen reader, few colours or a printer gets, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from adapterbot import render
from adapterbot.pages import section
from adapterbot.records import Outcome, Report
from adapterbot.report import Beside, html
from scripts import comment_picture
from scripts.browser import EXECUTABLE, MISSING, chromium
from tests.golden.everywhere import beside
from tests.golden.reports import REPORTS, adapter, metric, report, sample

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)
# A4 within its margins, in CSS pixels.
PAPER = 718
RIGHTS = "cells => cells.map(cell => Math.ceil(cell.getBoundingClientRect().right))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(("told", "more"), [(REPORTS["several"](), Beside()), (report(), beside())])
def test_several_adapters_are_told_apart(told: Report, more: Beside, browser: Browser) -> None:
    """By ear: landmarks of one name, and headings that skip a level, are barriers to axe."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content(html(told, more))
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    words = [(str(section.headline(each)[1]), each.adapter) for each in told.adapters]
    titles = page.get_by_role("article").get_by_role("heading", level=2)
    expect(titles).to_have_text([" ".join(each) for each in words])
    links = page.get_by_role("navigation").get_by_role("link")
    for i, (word, name) in enumerate(words if len(words) > 1 else ()):
        expect(links.nth(i)).to_have_accessible_name(f"{word} {name}")
    page.close()


def test_what_decides_is_seen_on_a_phone_and_all_of_it_on_paper(browser: Browser) -> None:
    base = REPORTS["inconclusive"]().adapters[0]
    names = ("x" * 80, "refund-policy/multi-turn/en-GB", "日本語の日付の正規化タスク")
    more = {"metrics": (*base.metrics, *(metric(name, 0.9, 0.8) for name in names))}
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content(html(report(base.model_copy(update=more))))
    for column in ("Verdict", "Change"):
        header = page.get_by_role("columnheader", name=column, exact=True)
        assert max(header.evaluate_all(RIGHTS)) <= 390
    page.get_by_role("button", name="Switch to the dark theme").click()
    page.emulate_media(media="print")
    page.set_viewport_size({"width": PAPER, "height": 1000})
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert max(page.locator(".figures").evaluate_all(RIGHTS)) <= PAPER
    page.close()


def test_what_decides_is_seen_in_a_comment_on_a_phone(browser: Browser) -> None:
    told = REPORTS["inconclusive"]()
    body = render.comment(told, told.adapters[0])
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.set_content(comment_picture.page(body, width=400, theme="light", unfolded=False))
    inside = page.locator(".body").bounding_box()
    assert inside is not None
    for column in ("Verdict", "Δ"):
        header = page.get_by_role("columnheader", name=column, exact=True)
        assert max(header.evaluate_all(RIGHTS)) <= inside["x"] + inside["width"]
    page.close()


def test_nothing_is_said_by_colour_alone(browser: Browser) -> None:
    """A bad probe has a shape of its own, and what differs is marked where colours are forced."""
    told = REPORTS["regressed"]()
    page = browser.new_page(forced_colors="active")
    page.set_content(html(told))
    found = told.adapters[0].bisect
    assert found is not None
    assert page.locator(".timeline path").count() == sum(p.outcome == "bad" for p in found.probes)
    line = "mark => getComputedStyle(mark).textDecorationLine"
    assert page.locator(".sample del").first.evaluate(line) == "underline"
    sign = "row => getComputedStyle(row, '::before').content"
    assert page.locator(".rows ins").first.evaluate(sign) == '"+ "'
    page.close()


@pytest.mark.parametrize("name", ["regressed", "passed", "progress"])
def test_no_line_of_blocks_is_read_out(name: str, browser: Browser) -> None:
    """A screen reader says "lower one eighth block", once for each checkpoint."""
    body = render.progress("dates", "dates", 0.4)
    if name != "progress":
        body = render.comment(REPORTS[name](), REPORTS[name]().adapters[0])
    assert any(sign in body for sign in "▁█")
    page = browser.new_page()
    page.set_content(comment_picture.github_html(body))
    # What an image holds is not read out, only its name.
    heard = re.sub(r'(- img ".*"): .*', r"\1", page.locator("body").aria_snapshot())
    assert not set(heard) & set("▁▂▃▄▅▆▇█░"), heard
    if name == "passed":
        assert "lowest 90.0%, highest 96.0%, last 96.0%" in heard
    page.close()


def test_a_sentence_in_hebrew_ends_on_its_left(browser: Browser) -> None:
    said = sample(1, "שלום לכולם.", "x", "a", "b")
    page = browser.new_page()
    page.set_content(html(report(adapter(Outcome.PASSED, samples=(said,), samples_changed=1))))
    lefts = page.locator(".asked pre").first.evaluate(
        """block => [0, block.firstChild.length - 1].map(i => {
            const range = document.createRange();
            range.setStart(block.firstChild, i);
            range.setEnd(block.firstChild, i + 1);
            return range.getBoundingClientRect().left;
        })"""
    )
    assert lefts[1] < lefts[0]
    page.close()
