"""Every verdict of the golden reports, explained: its rule is named with its own figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.pages.explanation import explain, text
from adapterbot.records import MetricVerdict, Outcome, Report, Standing

GOLDEN = Path(__file__).parent.parent / "golden"
REPORTS = sorted(path for path in GOLDEN.glob("*.json"))


def report(name: str) -> Report:
    return Report.model_validate_json((GOLDEN / f"{name}.json").read_bytes())


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_every_report_can_be_explained(path: Path) -> None:
    found = Report.model_validate_json(path.read_bytes())
    for adapter, explained in zip(found.adapters, explain(found), strict=True):
        assert [m.standing for m in explained.metrics] == [m.standing for m in adapter.metrics]
        assert all(metric.because for metric in explained.metrics)
        assert text(explained)


def test_a_regression_names_the_rule_and_its_figures() -> None:
    (explained,) = explain(report("regressed"))
    assert explained.outcome is Outcome.REGRESSED
    assert explained.fails
    worse = next(m for m in explained.metrics if m.standing is Standing.REGRESSED)
    words = "\n".join(worse.because)
    assert "the lower bound of the harm is above 0" in words
    assert "p (worse) after Holm" in words
    assert "paired samples" in words
    assert any("broke at" in line for line in explained.because)


def test_what_is_undecided_says_what_would_settle_it() -> None:
    (explained, *_) = explain(report("inconclusive"))
    open_ = next(m for m in explained.metrics if m.standing is Standing.INCONCLUSIVE)
    assert any("samples would settle it" in line for line in open_.because)


@pytest.mark.parametrize("least", [0.0, 0.02])
@pytest.mark.parametrize(
    ("standing", "rule", "what"),
    [
        (Standing.REGRESSED, "the lower bound of the harm is above 0", "harm"),
        (Standing.IMPROVED, "surely below 0", "gain"),
        (Standing.OK, "below the margin", None),
    ],
)
def test_each_standing_names_its_own_rule(standing, rule, what, least):
    (adapter,) = report("regressed").adapters
    metric = next(one for one in adapter.metrics if one.standing is standing)
    metric = metric.model_copy(update={"least_effect": least})
    told = report("regressed").model_copy(
        update={"adapters": (adapter.model_copy(update={"metrics": (metric,)}),)}
    )
    ((explained,),) = (one.metrics for one in explain(told))
    (said,) = (line for line in explained.because if line.startswith(f"{standing.value}: "))
    assert rule in said
    pts = "\N{NARROW NO-BREAK SPACE}pts"
    counted = f"the {what} is at least +2.0{pts}, the least that counts"
    assert (counted in said) is bool(what and least)


def lines_of(metric: MetricVerdict) -> list[str]:
    (adapter,) = report("regressed").adapters
    told = report("regressed").model_copy(
        update={"adapters": (adapter.model_copy(update={"metrics": (metric,)}),)}
    )
    ((explained,),) = (one.metrics for one in explain(told))
    return list(explained.because)


def test_a_threshold_that_is_missed_is_not_called_a_harm_that_counts() -> None:
    """Surely harm, and surely less than counts: it can only be the threshold that was missed."""
    (adapter,) = report("regressed").adapters
    metric = next(one for one in adapter.metrics if one.standing is Standing.REGRESSED)
    delta = metric.delta.model_copy(update={"harm_low": 0.01, "change": -0.2})
    said = lines_of(metric.model_copy(update={"delta": delta, "least_effect": 0.5}))
    assert "regressed: the candidate misses the threshold that the suite demands" in said


def test_a_bound_is_told_from_the_margin_that_it_is_held_against() -> None:
    (adapter,) = report("regressed").adapters
    metric = next(one for one in adapter.metrics if one.standing is Standing.OK)
    delta = metric.delta.model_copy(update={"harm_low": -0.02, "harm_high": 0.00996})
    pts = "\N{NARROW NO-BREAK SPACE}pts"
    said = lines_of(metric.model_copy(update={"delta": delta, "margin": 0.01}))
    assert any(line.endswith(f"at most +0.996{pts}") for line in said)
    assert f"ok: the upper bound of the harm is below the margin +1.0{pts}" in said
    said = lines_of(metric.model_copy(update={"delta": delta, "margin": 0.0125}))
    assert any(line.endswith(f"at most +1.0{pts}") for line in said)
    assert f"ok: the upper bound of the harm is below the margin +1.25{pts}" in said


def test_a_drop_that_fails_within_the_margin_says_which_field_tolerates_it() -> None:
    (adapter,) = report("regressed").adapters
    metric = next(one for one in adapter.metrics if one.standing is Standing.REGRESSED)
    assert not any("least_effect" in line for line in lines_of(metric))
    within = metric.model_copy(update={"margin": 0.9})
    assert any("set `least_effect`" in line for line in lines_of(within))


def test_a_problem_says_what_to_do() -> None:
    (explained,) = explain(report("bad_input"))
    assert explained.outcome is Outcome.NOT_JUDGED
    assert any(line.startswith("to do: ") for line in explained.because)


def test_nothing_of_a_hostile_report_reaches_a_terminal_unseen() -> None:
    """Attack: escape sequences and bidi controls in names, which a terminal would obey."""
    shown = "\n".join(map(text, explain(report("hostile"))))
    harmless = {"\n", "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"}
    assert all(character.isprintable() or character in harmless for character in shown)


def test_what_could_not_be_judged_names_the_file_and_is_not_called_a_gate_that_does_not_fail() -> (
    None
):
    (explained, *_) = explain(report("bad_input"))
    problem = report("bad_input").adapters[0].problem
    assert problem is not None
    said = text(explained)
    assert "could not be judged, so the gate ends with an error" in said
    assert "does not fail" not in said
    assert f"{problem.file}: {problem.field}: {problem.message}" in said
