"""A report that is too large to be published is cut, says so, and keeps what decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot import render
from adapterbot.commands.report_files import read_report, write
from adapterbot.commands.report_size import MAX_REPORT_BYTES, within
from adapterbot.errors import InputError
from adapterbot.records import Direction, Outcome, Report, Standing, Unit
from adapterbot.records.history import Point, Trend
from tests.golden.reports import REPORTS, adapter, metrics, report, sample

LONG = "答え" * 2048


def trend(metric: str) -> Trend:
    points = tuple(Point(commit="a" * 40, time=i, value=i / 100) for i in range(100))
    return Trend(metric=metric, unit=Unit.FRACTION, direction=Direction.HIGHER, points=points)


def large(adapters: int, text: str = LONG) -> Report:
    return report(
        *(
            adapter(
                Outcome.REGRESSED,
                "us −30.0 points",
                key=f"a{i}",
                metrics=metrics(0.675, Standing.REGRESSED),
                samples=tuple(sample(j, text, text, text, f"{text}x") for j in range(24)),
                samples_changed=300,
                trends=(trend("dates"),),
                notes=("a note of its own",),
            )
            for i in range(adapters)
        )
    )


def size(told: Report) -> int:
    return len(render.json_text(told).encode())


def test_what_a_gate_writes_can_be_published(tmp_path: Path):
    """Sixteen adapters with long answers, whose report was once written and then refused."""
    told = large(16)
    assert size(told) > MAX_REPORT_BYTES
    written = write(told, tmp_path)
    assert read_report(written.report_path) == written.report
    for before, after in zip(told.adapters, written.report.adapters, strict=True):
        assert after.samples == before.samples[: len(after.samples)] != ()
        assert (after.metrics, after.verdict) == (before.metrics, before.verdict)
    comment = written.comment_paths[0].read_text(encoding="utf-8")
    assert "small enough to be published" in comment


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_of_the_usual_size_stays_as_it_is(name: str):
    told = REPORTS[name]()
    assert within(told) is told


def test_no_more_is_cut_than_has_to_be_and_the_newest_levels_stay():
    told = large(2, "answer " * 100)
    for share in (0.9, 0.5, 0.2):
        limit = int(size(told) * share)
        cut = within(told, limit)
        assert size(cut) <= limit
        first = cut.adapters[0]
        said, *others = first.notes
        assert f"at most {len(first.samples)} samples" in said
        assert others == ["a note of its own"]
        for kept in first.trends:
            assert kept.points == told.adapters[0].trends[0].points[-len(kept.points) :] != ()


def test_a_report_that_is_cut_again_says_what_it_has_then():
    """Legs of a matrix come one after the other, each perhaps cut already."""
    told = large(2, "answer " * 100)
    once = within(told, size(told) // 2)
    twice = within(once, size(told) // 8)
    assert len(twice.adapters[0].samples) < len(once.adapters[0].samples)
    samples, levels = len(twice.adapters[0].samples), len(twice.adapters[0].trends[0].points)
    (said,) = (note for note in twice.adapters[0].notes if "report.json" in note)
    assert said.endswith(f"at most {samples} samples and {levels} past levels")


def test_what_decides_is_never_cut_and_too_much_of_it_is_refused_with_the_fix(tmp_path: Path):
    told = large(2, "short")
    with pytest.raises(InputError, match="judge fewer adapters in one run") as caught:
        within(told, 5000)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("report.json: would be larger than 5,000 bytes")
