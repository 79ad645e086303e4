"""The page of a report in a real browser, clicked through as a reader would."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from adapterbot import render
from adapterbot.eval.saved import save_results
from adapterbot.pages.inert import visible_lines
from adapterbot.records import AdapterRef, Report, SampleScore, SavedResults, TaskResult
from adapterbot.records.saved import SavedTask
from adapterbot.report import html
from scripts.browser import EXECUTABLE, MISSING, chromium
from tests import command_line
from tests.golden.attacks import ATTACKS
from tests.golden.everywhere import beside, merge_of
from tests.golden.reports import REPORTS, adapter, report, sample, trend

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page that must neither ask for anything nor complain."""
    contexts: list[BrowserContext] = []
    troubles: list[str] = []

    def asked(url: str, expected: str) -> None:
        if url != expected:
            troubles.append(url)

    def open_page(path: Path, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda sent: asked(sent.url, path.as_uri()))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


# ---------------------------------------------------------------- ten thousand samples

WORDS = "the quick brown fox jumps over a lazy dog near every river in spring".split()  # noqa: SIM905
SLICES = ("short", "long", None)


def answers(side: str) -> dict[str, tuple[TaskResult, ...]]:
    """Two tasks of 5,000 samples; the candidate loses each tenth and wins each 25th."""
    chance = random.Random(11)
    before, after = [], []
    for task in ("dates", "names"):
        rows: tuple[list[SampleScore], list[SampleScore]] = ([], [])
        for i in range(5000):
            text = " ".join(chance.choices(WORDS, k=30))
            lost, won = i % 10 == 3, i % 25 == 7
            for results, score, output in (
                (rows[0], float(not won), text),
                (rows[1], float(not lost), text.replace("fox", "cat") if lost or won else text),
            ):
                results.append(
                    SampleScore(
                        sample_id=f"{task}-{i}",
                        score=score,
                        prompt=f"Question {i} of {task}",
                        expected=text,
                        output=output,
                        slice=SLICES[i % 3],
                    )
                )
        kind: dict[str, Any] = {"scorer": "exact", "direction": "higher", "kind": "binary"}
        before.append(TaskResult(task=task, samples=tuple(rows[0]), **kind))
        after.append(TaskResult(task=task, samples=tuple(rows[1]), **kind))
    return {"baseline": tuple(before), "candidate": tuple(after)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a gate leaves, and the page that the command line makes of it."""
    made = tmp_path_factory.mktemp("report")
    refs = {side: AdapterRef(label=side, digest=digit * 64) for side, digit in SIDES.items()}
    told = REPORTS["regressed"]()
    more = {**refs, "trends": (trend("dates", 0.97, None, 0.96, 0.97),)}
    told = told.model_copy(update={"adapters": (told.adapters[0].model_copy(update=more),)})
    (made / "report.json").write_text(render.json_text(told), "utf-8")
    (made / "merge.json").write_text(merge_of().model_dump_json(), "utf-8")
    routes = beside().routes
    assert routes is not None
    (made / "routes.json").write_text(routes.model_dump_json(), "utf-8")
    for side, results in answers("both").items():
        head = SavedResults(
            tool="t",
            adapter=refs[side],
            base_model="base",
            suite="suite.yaml",
            tasks=tuple(
                SavedTask(
                    name=result.task, scorer="exact", direction="higher", kind="binary",
                    unit="fraction", margin=0.05, gated=True, digest="3" * 64,
                )
                for result in results
            ),
        )  # fmt: skip
        save_results(made / "results" / f"dates.{side}.jsonl", head, results)
    done = command_line.run(
        *("report", "report.json", "-o", "page.html"),
        *("--merge", "merge.json", "--routes", "routes.json"),
        cwd=made,
    )
    assert done.returncode == 0, done.stderr
    return made


SIDES = {"baseline": "a", "candidate": "b"}
STATUS = "#a0-samples .status"


def choose(page: Page, kind: str) -> None:
    page.get_by_role("radio", name=kind).check(force=True)


def test_ten_thousand_samples_are_filtered_searched_and_paged(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html")
    status, items = page.locator(STATUS), page.locator("#a0-samples .sample")
    lost, won = 2 * 500, 2 * 200  # no index is both
    expect(status).to_have_text(f"1 to 25 of {lost + won} of 10000 samples")
    expect(items).to_have_count(25)
    choose(page, "All")
    expect(status).to_have_text("1 to 25 of 10000 of 10000 samples")
    choose(page, "Better")
    expect(status).to_have_text(f"1 to 25 of {won} of 10000 samples")
    expect(items.first).to_contain_text("better")
    choose(page, "Worse")
    page.get_by_label("Task").select_option("names")
    expect(status).to_have_text("1 to 25 of 500 of 10000 samples")
    page.get_by_label("Slice").select_option("long")
    lost_and_long = sum(i % 10 == 3 and i % 3 == 1 for i in range(5000))
    expect(status).to_have_text(f"1 to 25 of {lost_and_long} of 10000 samples")
    page.get_by_label("Search").fill("QUESTION 13 OF")
    expect(status).to_have_text("1 of 10000 samples")
    expect(items).to_contain_text("names-13")
    page.get_by_label("Search").fill("no such words")
    expect(status).to_have_text("No sample matches.")
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Next").click()
    expect(status).to_have_text(f"26 to 50 of {lost_and_long} of 10000 samples")
    expect(page.locator("#a0-samples h3")).to_be_focused()
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()


def test_an_answer_is_compared_word_by_word(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html")
    page.get_by_label("Search").fill("fox")
    first = page.locator("#a0-samples .sample").first
    assert set(first.locator("del").all_inner_texts()) == {"fox"}
    assert set(first.locator("ins").all_inner_texts()) == {"cat"}
    before, after = first.locator(".sides pre").all_inner_texts()
    assert before.replace("fox", "cat") == after


def longest_common(a: str, b: str) -> int:
    """Length of a longest common subsequence, by the textbook's recurrence."""
    row = [0] * (len(b) + 1)
    for x in a:
        row = [0, *row]
        previous = row[1:]
        row = [0]
        for j, y in enumerate(b):
            row.append(previous[j] + 1 if x == y else max(previous[j + 1], row[j]))
    return row[-1]


def test_no_more_is_marked_than_differs(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html")
    chance = random.Random(5)
    cases = [
        ["".join(chance.choices("ab c.", k=chance.randrange(12))) for _ in "xy"] for _ in range(300)
    ]
    found = page.evaluate(
        """cases => cases.map(([a, b]) => {
            const parts = [[...a], [...b]];
            const kept = (marked, i) => parts[i].filter((_, j) => !marked[j]).join("");
            return differing(...parts).map(kept);
        })""",
        cases,
    )
    for (a, b), (kept_a, kept_b) in zip(cases, found, strict=True):
        assert kept_a == kept_b
        assert len(kept_a) == longest_common(a, b)
    texts = ["a b", " naïve\n\n日本語 x\u0301y 👩‍👩‍👧 ", "", "12-05_2020, ok?"]
    assert page.evaluate("texts => texts.map(text => words(text).join(''))", texts) == texts


def test_the_drawings_are_there(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html")
    for drawn in (".interval", ".timeline", ".spark", ".curves", ".heat td svg"):
        box = page.locator(drawn).first.bounding_box()
        assert box is not None
        assert box["width"] > 10
        assert box["height"] > 10
    expect(page.locator("#merge")).to_contain_text("winner")


def test_everything_is_reached_by_keyboard(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the verdict")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.get_by_label("Search").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Worse")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Task")).to_be_focused()


def test_a_reader_chooses_the_theme(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Switch to the dark theme").press("Enter")
    dark = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Switch to the light theme").click()
    assert page.evaluate(ground) == light
    assert opened(folder / "page.html", color_scheme="dark").evaluate(ground) == dark


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_barrier(scheme: Any, width: int, folder: Path, opened: Open) -> None:
    page = opened(
        folder / "page.html", color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    for summary in page.locator("summary").all():
        summary.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_the_rest_is_read(folder: Path, opened: Open) -> None:
    page = opened(folder / "page.html", java_script_enabled=False)
    assert "takes JavaScript" in page.locator("#a0-samples").inner_text()
    expect(page.locator("#a0-metrics")).to_contain_text("regressed")


# ---------------------------------------------------------------- strangers


NAMED = {
    "the end of the data": '</script><script>pwned = 1</script><img src=x onerror="pwned = 1">',
    "a script that a comment opens": "<!--<script>pwned = 1",
    "a line separator in a string": "\u2028pwned = 1;\u2029//",
    "the end of a string": '"]; pwned = 1; //\\',
    "a javascript: URL": "javascript:pwned=1",
    "a bidi override": "\u202etxet neddih\u202c",
    "a template of the script's": "${pwned = 1}`",
    "an element in backticks": "see `<img src=x onerror='pwned = 1'>` and ``<b>``",
    "an attribute around backticks": "<a href='`javascript:pwned=1`' onclick=`pwned=1`>x</a>",
    "an attribute's end in backticks": '`" onmouseover="pwned=1` `quoted" id="main`',
    "backticks in a reference": "&lt`;script&gt`; `&#60;script&#62;pwned=1` `&amp;lt;b&amp;gt;`",
    "the end of the code in backticks": "`</code><script>pwned = 1</script><code>`",
    "a link in backticks": "`javascript:pwned=1` [`x`](javascript:pwned=1) `https://evil.example`",
    "a bidi override in backticks": "`\u202etxet neddih` \u2066`x\u2069`",
    "backticks on two lines": "`one\ntwo` ` ` `` ` ``` `three`",
    "a long word in backticks": f"`{'x' * 1498}`",
    **{name: text[:1500] for name, text in ATTACKS.items()},
}


def hostile() -> Report:
    """An adapter for each attack, which is in all its words and in its one sample; a dull first."""
    return report(
        *(
            adapter(
                "regressed", text, key=f"k{i}", adapter=text, samples_changed=1,
                samples=(
                    sample(1, text, text, text, f"{text} ", task=text[:200], sample_id=text[:200]),
                ),
            )
            for i, text in enumerate(("dull", *NAMED.values()))
        )
    )  # fmt: skip


# The elements of each article with the names of their attributes, but for those that a difference
# or an empty word is marked by; what is quoted; the sentence in the header as it was before.
_SEEN = """[...document.querySelectorAll("article")].map(article => {
    const told = element => `${element.tagName} ${element.getAttributeNames().sort()}`;
    const quoted = [...article.querySelectorAll(".quoted")];
    const sentence = article.querySelector("header > p:not(.pill)").cloneNode(true);
    for (const code of sentence.querySelectorAll(".quoted"))
        code.replaceWith("`" + code.textContent + "`");
    return {
        elements: [...article.querySelectorAll(":not(ins, del, .empty, .quoted)")].map(told),
        quoted: quoted.map(code => `${told(code)}=${code.className} < ${told(code.parentElement)}`),
        inside: quoted.map(code => code.innerHTML),
        sentence: sentence.textContent,
        list: article.querySelector(".list").innerText,
    };
})"""


def test_strangers_words_stay_words(tmp_path: Path, opened: Open) -> None:
    """No element, attribute, link or script comes of any attack in `NAMED`, but that of a sentence
    what stands between two backticks is set as code, which holds nothing but text."""
    (tmp_path / "page.html").write_text(html(hostile()), "utf-8")
    page = opened(tmp_path / "page.html", viewport={"width": 390, "height": 900})
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("[src], [href]:not([href^='#'])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dull, *seen = page.evaluate(_SEEN)
    assert len(seen) == len(NAMED)
    for (attack, text), found in zip(NAMED.items(), seen, strict=True):
        assert found["elements"] == dull["elements"], attack
        assert set(found["quoted"]) <= {"CODE class=quoted < P "}, attack
        assert not any("<" in inside for inside in found["inside"]), attack
        assert found["sentence"] == visible_lines(text), attack
        said = found["list"]
        assert "sample" in said, attack
        hidden = [
            c for c in said if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} and c != "\n"
        ]
        assert hidden == [], attack
    marked = [attack for attack, found in zip(NAMED, seen, strict=True) if found["quoted"]]
    assert len(marked) >= 8


def test_the_policy_holds_even_if_something_got_in(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "page.html"
    path.write_text(html(REPORTS["regressed"]()), "utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.evaluate(
        """() => {
            window.refused = [];
            document.addEventListener(
                "securitypolicyviolation", event => refused.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            const style = document.createElement("style");
            style.textContent = "body { display: none }";
            const image = document.createElement("img");
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            document.body.append(script, style, image);
            document.body.setAttribute("style", "color: red");
        }"""
    )
    page.wait_for_function("refused.length >= 4")
    assert page.evaluate("window.pwned") is None
    assert set(page.evaluate("refused")) == {
        "script-src-elem", "style-src-elem", "img-src", "style-src-attr",
    }  # fmt: skip
    page.close()
