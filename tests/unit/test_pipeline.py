"""The small decisions between the organs: which samples are shown, what a probe means, what a
report makes of the exit code."""

from __future__ import annotations

import pytest

from adapterbot.commands.announcement import outputs
from adapterbot.commands.report_files import exit_code
from adapterbot.differing import differing_samples
from adapterbot.errors import ExitCode, InputError, OurFailure
from adapterbot.records import (
    AdapterReport,
    Direction,
    Outcome,
    Report,
    SampleScore,
    ScoreKind,
    Source,
    TaskResult,
    Verdict,
)
from adapterbot.unjudged import UNKNOWN_KEY, not_judged, stopped


def result(
    task: str, scores: list[float | None], direction: Direction = Direction.HIGHER
) -> TaskResult:
    return TaskResult(
        task=task,
        scorer="exact",
        direction=direction,
        kind=ScoreKind.CONTINUOUS,
        samples=tuple(
            SampleScore(
                sample_id=f"s{i}",
                score=score,
                missing=None if score is not None else "no answer",
                output=str(score),
            )
            for i, score in enumerate(scores)
        ),
    )


def test_samples_of_the_regressed_task_come_first_then_the_most_harmful() -> None:
    before = [result("a", [1, 1, 1]), result("b", [1, 1, 0])]
    after = [result("a", [1, 0, 0.5]), result("b", [0, 1, 1])]
    shown = differing_samples(before, after, first={"b"})
    assert [(d.task, d.sample_id, d.harm) for d in shown] == [
        ("b", "s0", 1.0),
        ("b", "s2", -1.0),
        ("a", "s1", 1.0),
        ("a", "s2", 0.5),
    ]


def test_harm_is_oriented_and_a_missing_score_has_none() -> None:
    before = [result("a", [1.0, None], Direction.LOWER)]
    after = [result("a", [3.0, 1.0], Direction.LOWER)]
    shown = differing_samples(before, after)
    assert [d.harm for d in shown] == [2.0, None]


def section(key: str, outcome: Outcome, fails: bool = False) -> AdapterReport:
    return AdapterReport(
        key=key, adapter=key, verdict=Verdict(outcome=outcome, fails=fails, reasons=())
    )


def report(*sections: AdapterReport) -> Report:
    return Report(tool="t", source=Source(), adapters=sections)


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ([], ExitCode.CLEAN),
        ([section("a", Outcome.PASSED)], ExitCode.CLEAN),
        ([section("a", Outcome.INCONCLUSIVE)], ExitCode.CLEAN),
        ([section("a", Outcome.NOT_JUDGED)], ExitCode.BAD_INPUT),
        ([section("a", Outcome.REGRESSED, fails=True)], ExitCode.FINDING),
        (
            [section("a", Outcome.REGRESSED, fails=True), not_judged("b", "b", InputError("x"))],
            ExitCode.BAD_INPUT,
        ),
        (
            [section("a", Outcome.REGRESSED, fails=True), not_judged("b", "b", OurFailure("x"))],
            ExitCode.FAILURE,
        ),
    ],
)
def test_a_failure_of_ours_is_never_a_finding(sections, code) -> None:
    assert exit_code(report(*sections)) is code


def test_the_worst_adapter_speaks_in_the_outputs() -> None:
    found = report(section("a", Outcome.PASSED), section("b", Outcome.REGRESSED, fails=True))
    assert outputs(found, {"b": "url"}) == {
        "verdict": "regressed",
        "lock-status": "",
        "first-bad-checkpoint": "",
        "comment-url": "url",
    }
    assert outputs(report(), {})["verdict"] == "unchanged"


def test_what_stops_the_gate_is_said_of_every_adapter_it_knew() -> None:
    whole = stopped([("a", "adapters/a"), ("b", "adapters/b")], Source(), OurFailure("no GPU"))
    assert [adapter.key for adapter in whole.adapters] == ["a", "b"]
    assert {problem.message for problem in whole.problems} == {"no GPU"}
    assert stopped([], Source(), OurFailure("x")).adapters[0].key == UNKNOWN_KEY
