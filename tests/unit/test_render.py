"""Whole documents against the golden files, and what the renderer promises of every one.

`UPDATE_GOLDEN=1 pytest tests/unit/test_render.py` rewrites tests/golden/; look at what changed.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from adapterbot import render
from adapterbot.marker import key_of
from adapterbot.pages import section as sections
from adapterbot.pages.explanation import explain
from adapterbot.records import (
    BisectResult,
    BisectVerdict,
    Comparison,
    Direction,
    LockResult,
    LockStatus,
    Outcome,
    Probe,
    ProbeOutcome,
    Problem,
    Report,
    Standing,
    Unit,
)
from adapterbot.render import Links
from adapterbot.report import html
from tests.golden.reports import HEAD, REPORTS, adapter, metric, report, sample

GOLDEN = Path(__file__).parent.parent / "golden"
LINKS = Links(
    run="https://github.com/acme/adapters/actions/runs/1",
    summary="https://github.com/acme/adapters/actions/runs/1#summary",
    report="https://github.com/acme/adapters/actions/runs/1/artifacts/2",
)
LIMITS = {"oversize": 9_000}


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, "utf-8", newline="")
    assert path.read_bytes().decode() == text


@pytest.mark.parametrize("name", REPORTS)
def test_golden_comment(name: str) -> None:
    check(f"{name}.json", render.json_text(REPORTS[name]()))
    told = Report.model_validate_json((GOLDEN / f"{name}.json").read_text("utf-8"))
    limit = LIMITS.get(name, render.COMMENT_LIMIT)
    body = render.comment(told, told.adapters[0], links=LINKS, limit=limit)
    check(f"{name}.md", body)
    assert key_of(body) == told.adapters[0].key
    assert len(body.encode()) <= limit
    assert body == render.comment(told, told.adapters[0], links=LINKS, limit=limit)


def test_golden_summary() -> None:
    check("several.summary.md", render.summary(REPORTS["several"](), links=LINKS))


def test_golden_progress() -> None:
    check(
        "progress.md",
        render.progress(
            "dates",
            "adapters/dates",
            0.4,
            detail="baseline, 160 of 400 samples",
            head_sha=HEAD,
            links=LINKS,
        ),
    )


# ---------------------------------------------------------------- the byte budget


def crowded(metrics: int, samples: int, text: str) -> Report:
    base = REPORTS["regressed"]().adapters[0]
    long = [
        sample(i, text, text, text, text, task="t", slice=None, sample_id=f"s{i}")
        for i in range(samples)
    ]
    rows = [metric(f"task {i}", 0.9, 0.9 + i / 1e6) for i in range(metrics)]
    return report(
        base.model_copy(
            update={
                "metrics": (*base.metrics, *rows),
                "samples": tuple(long),
                "notes": ("a note " * 100,) * 50,
            }
        )
    )


@pytest.mark.parametrize("limit", [400, 1_000, 3_000, 10_000, 65_000])
@pytest.mark.parametrize("text", ["plain words ", "\u202e|`@acme\n", "日本語のプロンプト"])
def test_every_limit_is_kept(limit: int, text: str) -> None:
    full = crowded(3000, 80, text * 300)
    body = render.comment(full, full.adapters[0], links=LINKS, limit=limit)
    assert len(body.encode()) <= limit
    assert "❌" in body
    assert "Left out to fit" in body or "more to say than fits" in body
    if limit == 65_000:
        assert len(body.encode()) > 40_000  # what fits is shown
        assert "−45.0" in body


def test_what_is_most_interesting_stays_longest() -> None:
    full = crowded(30, 12, "x" * 3000)
    sizes = {}
    for limit in (200_000, 30_000, 14_000, 9_000, 5_000, 2_000):
        body = render.comment(full, full.adapters[0], limit=limit)
        sizes[limit] = (
            "How each metric was decided" in body,
            "`task 7`" in body,
            "checkpoint-0080" in body,
            "`s0`" in body,
            "−45.0\u202fpts" in body,
            "Broke at" in body,
        )
    assert sorted(sizes.values(), reverse=True) == list(sizes.values())
    assert sizes[200_000] == (True,) * 6
    assert sizes[2_000][-1]


@pytest.mark.parametrize("name", [*REPORTS, "crowded"])
def test_all_that_has_no_bound_can_be_left_out(name: str) -> None:
    told = crowded(30, 12, "x") if name == "crowded" else REPORTS[name]()
    for one in told.adapters:
        order = sections.give_way(one)
        gone, bare = Counter(kind for kind, _ in order), sections.page(one, order)
        assert len(set(order)) == len(order)
        assert gone["quiet"] + gone["loud"] == len(one.metrics)
        assert gone["sample"] == len(one.samples)
        assert gone["note"] == len(one.notes)
        assert gone["probe"] == len(one.bisect.probes if one.bisect else ())
        assert gone["part"] == len(one.lock.parts if one.lock else ())
        left = (bare.rows, bare.quiet_rows, bare.sample_groups, bare.probes, bare.notes)
        assert not any((*left, bare.lock_parts, bare.routing, bare.decided))


def test_a_limit_without_room_for_a_headline_is_refused() -> None:
    full = REPORTS["passed"]()
    with pytest.raises(ValueError, match="no comment fits"):
        render.comment(full, full.adapters[0], limit=60)


def test_nothing_is_left_out_when_there_is_room() -> None:
    for name in REPORTS.keys() - {"oversize"}:
        assert "Left out" not in (GOLDEN / f"{name}.md").read_text("utf-8")


@pytest.mark.parametrize(("limit", "sections"), [(1_000_000, 40), (60_000, 40), (6_000, 0)])
def test_a_summary_shares_its_budget(limit: int, sections: int) -> None:
    base = crowded(60, 12, "words " * 300).adapters[0]
    many = report(*(base.model_copy(update={"key": f"a{i}"}) for i in range(40)))
    text = render.summary(many, links=LINKS, limit=limit)
    assert len(text.encode()) <= limit
    assert text.count("## ❌ Regressed") == sections
    assert ("Left out to fit: 40 adapters." in text) == (sections == 0)


def test_a_hostile_report_is_cut_in_time() -> None:
    full = crowded(20_000, 300, "```" * 1000)
    start = time.process_time()
    render.comment(full, full.adapters[0])
    assert time.process_time() - start < 30


# ---------------------------------------------------------------- what a reader is told


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("kind", ["bad_input", "failure"])
def test_a_problem_never_looks_judged(
    outcome: Outcome, kind: Literal["bad_input", "failure"]
) -> None:
    problem = Problem(kind=kind, message="it broke", file="a.yaml", field="x", fix="mend it")
    told = report(adapter(outcome, "all is well", problem=problem))
    for text in (
        render.comment(told, told.adapters[0]),
        render.summary(told),
        html(told),
    ):
        assert "Could not judge" in text
        assert "✅" not in text
        assert "Passed" not in text
        for part in ("it broke", "a.yaml", "mend it"):
            assert part in text


@pytest.mark.parametrize(
    ("n", "said"), [(9, "only 9 samples"), (200, "only a few clusters of samples")]
)
def test_what_is_too_few_is_said(n: int, said: str) -> None:
    few = metric("dates", 0.9, 0.8, outcome=Comparison.TOO_FEW, standing=Standing.NOT_JUDGED, n=n)
    told = report(adapter(Outcome.NOT_JUDGED, metrics=(few,)))
    assert f"not judged: {said}" in render.comment(told, told.adapters[0])


def test_many_metrics_are_folded() -> None:
    told = crowded(20, 1, "a")
    body = render.comment(told, told.adapters[0])
    head, _, folded = body.partition("none worse</summary>")
    assert "23 more metrics" in head
    assert "❌\u00a0regressed" in head
    assert "`task 7`" not in head
    assert "`task 7`" in folded


def test_a_lock_that_was_taken_away_is_not_said_to_pin_anything() -> None:
    """It read: "the push is not what `soup.lock` pins. the lock is not here, but …"; and explain
    listed what "does not match:", which was nothing."""
    note = "soup.lock is not here, but 1234567 has it"
    gone = LockResult(status=LockStatus.DRIFT, path="soup.lock", note=note)
    told = report(adapter(Outcome.DRIFT, lock=gone))
    said = render.comment(told, told.adapters[0])
    assert "**Lock drift**: `soup.lock` is not here, but `1234567` has it\n" in said
    assert "pins" not in said
    assert note in explain(told)[0].because


def test_a_slice_without_its_task_names_both() -> None:
    told = report(adapter(Outcome.PASSED, metrics=(metric("dates", 0.5, 0.5, part="us"),)))
    assert "| `dates` `us` |" in render.comment(told, told.adapters[0])


@pytest.mark.parametrize(
    ("bisect", "words"),
    [
        ({"verdict": "ALL_OK", "checkpoints": 16}, "no broken checkpoint among 16"),
        ({"verdict": "NOT_RUN", "note": "no archive"}, "Bisect did not run: no archive."),
        ({"verdict": "NOT_RUN"}, "Bisect did not run."),
        ({"verdict": "BROKEN_AT", "first_broken": "c-10"}, "**Broke at `c-10`**."),
        (
            {
                "verdict": "BROKEN_WITHIN",
                "first_broken": "c-1",
                "last_good": "c-0",
                "candidates": [f"c-{i}" for i in range(1, 12)],
                "probability": 0.4,
                "suspicions": [
                    {"index": i, "label": f"c-{i}", "probability": p}
                    for i, p in ((1, 0.4), (3, 0.3))
                ],
                "note": "stopped by its time limit",
            },
            (
                "**Broke within 11 checkpoints** (most likely `c-1`, 40\u202f%):\n"
                "`c-1` 40\u202f%, `c-2`, `c-3` 30\u202f%, `c-4`, `c-5`, `c-6`, "
                "`c-7`, `c-8` and 3 more; last good checkpoint `c-0`.\nstopped by its time limit\n"
            ),
        ),
    ],
)
def test_bisect_in_words(bisect: dict[str, Any], words: str) -> None:
    told = report(adapter(Outcome.REGRESSED, bisect=BisectResult.model_validate(bisect)))
    assert words in render.comment(told, told.adapters[0])
    assert "None" not in html(told).partition("<script>")[0]


def test_progress_without_a_figure() -> None:
    body = render.progress("dates", "dates")
    assert "%" not in body
    assert "✅" not in body
    assert render.progress("dates", "dates", 7.0) == render.progress("dates", "dates", 1.0)


def test_json_reads_back() -> None:
    for make in REPORTS.values():
        text = render.json_text(make())
        assert text.endswith("}\n")
        assert Report.model_validate_json(text) == make()


def test_links_come_from_the_trusted_side_only() -> None:
    told = REPORTS["passed"]()
    told = told.model_copy(
        update={"source": told.source.model_copy(update={"run_url": "https://evil.example/"})}
    )
    assert "evil" not in render.comment(told, told.adapters[0])


@pytest.mark.parametrize("outcome", list(ProbeOutcome))
def test_a_probe_is_shown_by_its_own_word(outcome: ProbeOutcome) -> None:
    probe = Probe(index=0, label="checkpoint-1", outcome=outcome, seconds=1.0, detail="why")
    found = BisectResult(verdict=BisectVerdict.NOT_RUN, checkpoints=2, probes=(probe,))
    told = report(adapter(Outcome.REGRESSED, bisect=found))
    shown = render.comment(told, told.adapters[0])
    (row,) = (line for line in shown.split("\n") if "why" in line)
    words = set(re.findall("good|bad|skipped|measured", row))
    assert words == {outcome.value}


@pytest.mark.parametrize(
    ("direction", "unit", "was", "now"),
    [
        (Direction.HIGHER, Unit.FRACTION, "✗", "✓"),
        (Direction.LOWER, Unit.FRACTION, "0", "1"),  # refusals: a tick would praise them
        (Direction.HIGHER, Unit.NUMBER, "0", "1"),  # one point out of ten
    ],
)
def test_a_tick_is_for_what_is_right(direction: Direction, unit: Unit, was: str, now: str) -> None:
    told = report(
        adapter(
            Outcome.REGRESSED,
            metrics=(metric("dates", 0.0, 1.0, direction=direction, unit=unit),),
            samples=(sample(1, "how?", "so", "thus", "so"),),
        )
    )
    shown = render.comment(told, told.adapters[0])
    assert f"| {was} `thus` | {now} `so` |" in shown
    (data,) = re.findall(
        r'<script type="application/json"[^>]*>(.*?)</script>', html(told), re.DOTALL
    )
    (row,) = json.loads(data)
    assert (row["was"], row["now"]) == (was, now)


def test_what_a_bisect_found_gives_way_before_what_was_judged() -> None:
    report = REPORTS["regressed"]()
    (section,) = report.adapters
    whole = render.comment(report, section)
    lacking = [
        render.comment(report, section, limit=limit)
        for limit in range(len(whole.encode()) - 1, 2500, -50)
    ]
    assert "Left out to fit: samples of the checkpoints." in lacking[0]
    assert "Samples that got worse there" not in lacking[0]
    for body in lacking:
        # The layers go after the samples of the checkpoints, and before any of the verdict's own.
        assert "Samples that got worse there" not in body
        if "How far the weights moved" not in body:
            assert "layers that moved" in body
        if "Samples where they differ most (6 of 57" not in body:
            assert "How far the weights moved" not in body
