"""No string of a report becomes anything but text or code in what GitHub shows.

Every free string field of a full report is given hostile text; the page that cmark-gfm and the
sanitiser make of the comment must have the same elements as for a harmless string of equal length
and equal line breaks, and the text outside code must hold nothing that GitHub's filters turn into
a mention, a reference, a link, an emoji or math.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import render
from adapterbot.marker import key_of
from adapterbot.records import (
    AdapterRef,
    BisectResult,
    BisectVerdict,
    EvalStats,
    LockPart,
    LockResult,
    LockStatus,
    Outcome,
    Probe,
    ProbeOutcome,
    Problem,
    Report,
    Source,
    Stage,
    Standing,
)
from scripts.comment_picture import github_html
from tests.golden.github_view import (
    ATTACKS,
    Page,
    assert_dead,
    assert_nothing_hidden,
    documents,
    harmless,
    hostile_text,
)
from tests.golden.reports import HEAD, HOSTILE, adapter, metric, sample

# ---------------------------------------------------------------- a report of nothing but strings


class Fields:
    """Numbered strings, so that a field can be found again."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return f"field{self.count:03}"


def full(variant: int) -> Report:
    f = Fields()
    verdicts = list(BisectVerdict)
    problems: tuple[Any, ...] = (
        None,
        Problem(kind="bad_input", message=f(), file=f(), field=f(), fix=f()),
        Problem(kind="failure", message=f(), file=f(), field=f(), fix=f()),
    )
    long = " and so on" * 20
    base = adapter(
        list(Outcome)[variant % 5],
        *(f() for _ in range(1 if variant == 0 else 7)),
        adapter=f(),
        base_model=f(),
        baseline=AdapterRef(label=f(), path=f()),
        candidate=AdapterRef(label=f(), path=f()),
        lock=LockResult(
            status=list(LockStatus)[variant % 3],
            path=f(),
            note=f(),
            parts=tuple(
                LockPart(part=f(), locked=f(), now=f(), ok=ok, explanation=f(), file=f(), line=line)
                for ok, line in ((False, 3), (False, None), (True, None))
            ),
        ),
        metrics=tuple(
            metric(task, 0.5, 0.4, part=part, standing=standing, reason=f(), note=f(), scorer=f())
            for task in (f() for _ in range(5 if variant % 2 else 2))
            for standing, part in ((Standing.OK, None), (Standing.REGRESSED, f()))
        ),
        samples=(
            sample(1, f(), f(), f(), f(), task=f(), slice=f(), sample_id=f()),
            sample(2, f() + long, f(), f(), f(), task=f(), slice=None, sample_id=f()),
            sample(3, f(), f(), f(), f(), task=f(), slice=f(), sample_id=f()),
        ),
        bisect=BisectResult(
            verdict=verdicts[variant % len(verdicts)],
            metrics=tuple(f() for _ in range(6)),
            checkpoints=16,
            first_broken=f(),
            last_good=f(),
            candidates=tuple(f() for _ in range(10)),
            probability=0.9,
            probes=tuple(
                Probe(index=i, label=f(), outcome=outcome, seconds=1, detail=f())
                for i, outcome in enumerate(ProbeOutcome)
            ),
            data_change=f(),
            note=f(),
        ),
        notes=(f(), f()),
        problem=problems[variant % 3],
        eval=EvalStats(device=f(), dtype=f(), samples=3),
        stages=(Stage(name=f(), seconds=1),),
    )
    source = Source(repository=f(), head_sha=HEAD, run_url=f())
    return Report(tool=f(), source=source, adapters=(base,))


VARIANTS = range(6)
FULL: dict[int, dict[str, Any]] = {v: full(v).model_dump(mode="json") for v in VARIANTS}


def strings(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from strings(item, (*path, i))
    elif isinstance(value, str):
        yield path, value


FREE = {v: [path for path, text in strings(FULL[v]) if text.startswith("field")] for v in VARIANTS}


def test_every_free_string_is_under_test() -> None:
    closed = {"key", "head_sha", "direction", "unit", "outcome", "standing", "status", "verdict"}
    for variant in VARIANTS:
        bound = {path[-1] for path, _ in strings(FULL[variant])} - {
            path[-1] for path in FREE[variant]
        }
        assert bound <= closed | {"kind"}


def with_text(variant: int, chosen: tuple[Any, ...] | None, text: str) -> Report:
    """The report with `text` in one field, or in all of them."""

    def put(value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, dict):
            return {key: put(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [put(item, (*path, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and value.startswith("field") and chosen in (None, path):
            return text + value[len("field000") :]
        return value

    return Report.model_validate(put(FULL[variant], ()))


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
    shown = Page(render.html(with_text(*where, text)))
    assert shown.elements == Page(render.html(with_text(*where, harmless(text)))).elements
    assert_nothing_hidden(shown.everything)


@documents
@given(anything, anything)
def test_progress_shows_text_and_code_only(name: str, text: str) -> None:
    def body(name: str, text: str) -> Page:
        return Page(github_html(render.progress("dates", name, 0.4, detail=text, head_sha=text)))

    shown = body(name, text)
    assert shown.elements == body(harmless(name), harmless(text)).elements
    assert_dead(shown.plain)
