"""The page of a report: what it holds, and that it holds nothing that could act."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import __version__
from adapterbot.commands import report as command
from adapterbot.commands.report_files import parse_report, read_report, results_path, write
from adapterbot.differing import Pair, pairs, worst_first
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.saved import save_results
from adapterbot.records import (
    AdapterRef,
    BisectResult,
    Direction,
    Outcome,
    Probe,
    SampleScore,
    SavedResults,
    SavedTask,
    Stage,
    Standing,
    Suspicion,
    TaskResult,
)
from adapterbot.report import Beside, drawing, html
from adapterbot.report.samples import embed
from adapterbot.unjudged import not_judged
from tests.golden.attacks import ATTACKS
from tests.golden.everywhere import beside
from tests.golden.reports import REPORTS, adapter, metric, report, sample
from tests.unit.test_render import check


def without_assets(page: str) -> str:
    page = re.sub(r"(<style>|<script>).*?(</style>|</script>)", r"\1…\2", page, flags=re.DOTALL)
    return re.sub(r"sha256-[A-Za-z0-9+/=]+", "sha256-…", page)


@pytest.mark.parametrize("name", ["passed", "regressed", "hostile", "bad_input"])
def test_golden_page(name: str) -> None:
    check(f"{name}.html", without_assets(html(REPORTS[name]())))


def test_the_page_needs_nothing_else_and_lets_nothing_else_run() -> None:
    page = html(REPORTS["hostile"](), beside("<script>alert(1)</script>"))
    assets = {
        kind: re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL) for kind in ("style", "script")
    }
    for kind, found in assets.items():
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page
        assert not re.search(r"url\(|@import|https?://|innerHTML|insertAdjacent|eval\(", found[1])
    assert "default-src 'none'" in page
    assert page.count("<script") == 2, "the data and the code, and nothing between"
    bare = re.sub(r"<(style|script)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"<[^>]*\s(src|style|on\w+)=", bare)
    assert set(re.findall(r'\shref="(.)', bare)) == {"#"}


# ---------------------------------------------------------------- samples


def told(text: str) -> Pair:
    return Pair(sample(1, text, text, "before", text, task=text[:200] or "t"), changed=True)


def read(embedded: str) -> list[dict[str, Any]]:
    """As a browser would read it: the element ends at the first `</script`, whatever the quotes."""
    assert "<" not in embedded
    assert ">" not in embedded
    assert embedded.isascii()
    found: list[dict[str, Any]] = json.loads(embedded)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_stays_inside_the_data(attack: str) -> None:
    (row,) = read(str(embed([told(ATTACKS[attack][:4000])]).json))
    for char in row["prompt"] + row["task"]:
        assert char.isprintable() or char in "\n\u00a0\u3000"


@given(st.text(max_size=300))
def test_any_text_is_read_back_as_it_is_shown(text: str) -> None:
    (row,) = read(str(embed([told(text)]).json))
    if text.isascii() and text.isprintable():
        assert row["prompt"] == row["after"] == text


def test_what_is_least_interesting_is_left_out_and_counted() -> None:
    many = [told(f"prompt {i} " + "x" * 1000) for i in range(50)]
    some = embed(many, limit=20_000)
    assert 0 < some.listed < 20
    assert some.listed + some.left_out == 50
    shown = [row["prompt"].split()[1] for row in read(str(some.json))]
    assert shown == [str(i) for i in range(some.listed)]


def results(direction: Direction, *scores: float | None) -> TaskResult:
    return TaskResult(
        task="t",
        scorer="exact",
        direction=direction,
        kind="continuous",
        samples=tuple(
            SampleScore(sample_id=str(i), score=score, output=f"{score}")
            if score is not None
            else SampleScore(sample_id=str(i), score=None, missing="timeout", output="None")
            for i, score in enumerate(scores)
        ),
    )


@pytest.mark.parametrize("direction", list(Direction))
def test_the_worst_comes_first_and_what_is_the_same_last(direction: Direction) -> None:
    before = results(direction, 0.5, 0.5, 0.5, None, 0.5)
    after = results(direction, 0.5, 0.75, 0.25, 0.5, 0.0)
    ordered = worst_first(pairs([before], [after]))
    ids = [pair.diff.sample_id for pair in ordered]
    worst = ["4", "2", "3", "1", "0"] if direction == "higher" else ["1", "3", "2", "4", "0"]
    assert ids == worst
    effects = [row.get("effect") for row in read(str(embed(ordered).json))]
    assert effects[-1] is None
    assert effects[: ids.index("3")] == ["worse"] * ids.index("3")
    assert effects[ids.index("3")] == "other", "what was not scored became neither"


def test_a_page_begins_with_what_regressed_though_another_task_lost_more() -> None:
    many = [
        Pair(
            sample(0, task, "a", "a", "b", task=task).model_copy(update={"harm": harm}),
            changed=True,
        )
        for task, harm in (("style", 0.9), ("dates", 0.1), ("style", 0.8))
    ]
    metrics = (
        metric("style", 0.9, 0.8, standing=Standing.INFORMATIVE, gated=False),
        metric("dates", 0.9, 0.8, standing=Standing.REGRESSED),
    )
    page = html(report(adapter(Outcome.REGRESSED, metrics=metrics)), Beside(samples=lambda _: many))
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert [row["task"] for row in read(data[1])] == ["dates", "style", "style"]


def test_answers_that_differ_beyond_what_is_shown_have_changed() -> None:
    def one(tail: str) -> TaskResult:
        answer = SampleScore(sample_id="a", score=1.0, output="x" * 5000 + tail)
        return results(Direction.HIGHER).model_copy(update={"samples": (answer,)})

    (pair,) = pairs([one("1")], [one("2")])
    assert pair.changed


def written(folder: Path, digest: str, *outputs: str) -> None:
    """A report of the adapter `dates`, and results of both sides, of which one is of `digest`."""
    refs = {side: AdapterRef(label=side, digest=side[0] * 64) for side in ("baseline", "candidate")}
    told = report(adapter("passed", **refs))
    (folder / "report.json").write_text(told.model_dump_json(), "utf-8")
    task = SavedTask(
        name="t", scorer="exact", direction="higher", kind="binary", unit="fraction", margin=0.05,
        gated=True, digest="3" * 64,
    )  # fmt: skip
    for side, output in zip(refs, outputs, strict=True):
        ref = (
            refs[side].model_copy(update={"digest": digest}) if side == "candidate" else refs[side]
        )
        head = SavedResults(tool="t", adapter=ref, base_model="b", suite="s", tasks=(task,))
        answer = SampleScore(sample_id="only", score=1.0, output=output)
        found = results(Direction.HIGHER).model_copy(update={"samples": (answer,)})
        save_results(results_path(folder, "dates", side), head, [found])


def test_results_of_other_weights_are_not_shown(tmp_path: Path) -> None:
    for digest, there in (("c" * 64, True), ("d" * 64, False)):
        written(tmp_path, digest, "unseen before", "unseen after")
        page = Path(command.run(tmp_path / "report.json", None).page).read_text("utf-8")
        assert ("unseen after" in page) is there


def test_results_that_cannot_be_read_leave_no_page(tmp_path: Path) -> None:
    written(tmp_path, "c" * 64, "a", "b")
    broken = results_path(tmp_path, "dates", "candidate")
    broken.write_text(broken.read_text() + '{"task": "t"}\n')
    with pytest.raises(InputError, match=r"dates\.candidate\.jsonl: line 3"):
        command.run(tmp_path / "report.json", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("line", [1, 2])
def test_results_of_another_version_are_said_to_be_and_nothing_is_written(
    line: int, tmp_path: Path
) -> None:
    written(tmp_path, "c" * 64, "a", "b")
    old = results_path(tmp_path, "dates", "candidate")
    lines = [json.loads(text) for text in old.read_text("utf-8").splitlines()]
    lines[0]["tool"] = "adapterbot 9.9.0"
    lines[line - 1]["novel"] = 1
    old.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
    said = (
        r"dates\.candidate\.jsonl: was written by adapterbot 9\.9\.0, which this one, .*, cannot "
    )
    with pytest.raises(
        InputError, match=said + r"read \(write it again with this one, or remove it"
    ):
        write(read_report(tmp_path / "report.json"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "results"]


def test_results_beside_an_adapter_that_was_not_judged_are_not_read(tmp_path: Path) -> None:
    written(tmp_path, "c" * 64, "a", "b")
    for side in ("baseline", "candidate"):
        results_path(tmp_path, "dates", side).write_text('{"of": "another version"}\n')
    failed = not_judged("dates", "adapters/dates", OurFailure("no model"))
    left = write(report(failed), tmp_path)
    assert "no model" in left.page_path.read_text("utf-8")


@pytest.mark.parametrize("option", ["merge", "routes"])
def test_a_file_of_another_kind_is_refused_by_name(option: str, tmp_path: Path) -> None:
    written(tmp_path, "c" * 64, "a", "b")
    other = tmp_path / "report.json"
    with pytest.raises(InputError, match=r"report\.json"):
        command.run(other, tmp_path / "page.html", **{option: other})
    assert not (tmp_path / "page.html").exists()


def test_the_page_does_not_take_the_place_of_its_report(tmp_path: Path) -> None:
    written(tmp_path, "c" * 64, "a", "b")
    report = tmp_path / "report.json"
    before = report.read_bytes()
    with pytest.raises(InputError, match="is a file that the command itself needs"):
        command.run(report, tmp_path / "." / "report.json")
    assert report.read_bytes() == before


# ---------------------------------------------------------------- drawings


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0, 0.5), st.sampled_from(["fraction", "number"])),
        min_size=1,
        max_size=8,
    )
)
def test_an_interval_keeps_its_order_and_stays_on_the_scale(
    figures: list[tuple[float, float, Any]],
) -> None:
    metrics = [
        metric(f"t{i}", 0.0, change, half, unit=unit)
        for i, (change, half, unit) in enumerate(figures)
    ]
    bars = [bar for bar in drawing.interval_bars(metrics) if bar]
    assert len(bars) == len(metrics)
    for bar, (change, half, _) in zip(bars, figures, strict=True):
        assert 0 <= bar.low <= bar.point <= bar.high <= 200
        assert (bar.point < 100) <= (change < 0)
        assert bar.worse is not None
        if change + half < -0.06:
            assert bar.high <= bar.worse[1], "an interval beyond the margin lies in the shade"


def test_where_lower_is_better_the_other_side_is_worse() -> None:
    (up,) = drawing.interval_bars([metric("t", 0.5, 0.5)])
    (down,) = drawing.interval_bars([metric("t", 0.5, 0.5, direction=Direction.LOWER)])
    assert up is not None
    assert down is not None
    assert down.worse is not None
    assert up.worse == (0.0, 200 - down.worse[0])
    assert down.worse[0] + down.worse[1] == 200


@pytest.mark.parametrize("checkpoints", [2, 16, 120, 121, 9_999])
def test_a_timeline_keeps_the_probability_and_every_probe(checkpoints: int) -> None:
    last = checkpoints - 1
    found = BisectResult(
        verdict="BROKEN_WITHIN",
        checkpoints=checkpoints,
        suspicions=tuple(
            Suspicion(index=i, label=f"c{i}", probability=p)
            for i, p in ((0, 0.25), (last, 0.5), (10**8, 0.2))
        ),
        probes=(
            Probe(index=last, label=f"c{last}", outcome="bad", seconds=1),
            Probe(index=10**8, label="nowhere", outcome="good", seconds=1),
        ),
    )
    line = drawing.timeline(found)
    assert line is not None
    assert len(line.columns) <= 120
    assert sum(column.probability for column in line.columns) == 0.75
    assert [len(c.probes) for c in line.columns] == [0] * (len(line.columns) - 1) + [1]
    assert line.columns[-1].label == f"c{last}"
    assert line.columns[-1].x + line.step <= line.width + len(line.columns) * 0.01


def test_stages_follow_each_other_and_fill_the_time() -> None:
    stages = drawing.timed([Stage(name=f"s{i}", seconds=i) for i in range(5)])
    assert sum(stage.share for stage in stages) == pytest.approx(100, abs=0.01)
    for one, next_ in pairwise(stages):
        assert next_.start == pytest.approx(one.start + one.share, abs=0.01)
    assert [s.share for s in drawing.timed([Stage(name="s", seconds=0)])] == [0]


def test_a_report_of_another_version_says_whose_it_is(tmp_path: Path) -> None:
    """The job that evaluates and the one that posts may be pinned apart."""
    content = json.loads(REPORTS["passed"]().model_dump_json())
    content["adapters"][0]["novel"] = 1
    with pytest.raises(InputError, match="novel: is not a field we know"):
        parse_report(json.dumps({**content, "tool": f"adapterbot {__version__}"}).encode(), "r")
    for tool in ("adapterbot 9.9.0", "adapterbot 9.9.0rc1"):
        with pytest.raises(InputError, match=f"was written by {tool}, which this one"):
            parse_report(json.dumps({**content, "tool": tool}, indent=2).encode(), "r")
    with pytest.raises(InputError, match="novel: is not a field"):
        parse_report(json.dumps({**content, "tool": "adapterbot 9 ::error::x"}).encode(), "r")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.json", "is not there: the gate left no report"),
        ("x" * 300, "cannot be read: File name too long"),
        ("file/report.json", "cannot be read: Not a directory"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=said):
        read_report(tmp_path / name)
