"""What a run cost and how a metric moved, in words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.overall import weighted_change
from adapterbot.pages.figures import Scale
from adapterbot.records import (
    Comparison,
    Direction,
    EvalStats,
    Interval,
    MetricDelta,
    Stage,
    Standing,
    Unit,
)
from adapterbot.report import Beside, html
from adapterbot.wording import cost, gained, level, reason
from tests.golden.everywhere import merge_of
from tests.golden.reports import metric, passed

STAGES = (
    Stage(name="lock", seconds=600, cpu_seconds=30),
    Stage(name="load", seconds=30, cpu_seconds=60),
    Stage(name="evaluate", seconds=60, cpu_seconds=90),
)


def test_what_a_metric_is_at_is_written_as_the_tables_write_it() -> None:
    assert level(0.625, Unit.FRACTION) == "62.5 %"
    assert level(41.26, Unit.NUMBER) == "41.3"


@pytest.mark.parametrize(
    ("gpus", "stages", "said"),
    [
        (0, STAGES, "3.0 CPU minutes"),
        (1, STAGES, "1.5 GPU minutes"),  # what came before the base was loaded held none
        (8, STAGES, "12.0 GPU minutes"),
        (1, STAGES[2:], "1.0 GPU minutes"),
        (0, STAGES[:1], "0.5 CPU minutes"),
        (0, (Stage(name="lock", seconds=9),), "<0.1 CPU minutes"),
        (1, (), None),
    ],
)
def test_a_gpu_is_paid_by_the_clock_and_a_processor_by_its_time(
    gpus: int, stages: tuple[Stage, ...], said: str | None
) -> None:
    assert cost(EvalStats(gpus=gpus), stages) == said


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(-n, n), st.just(n))))
def test_a_figure_is_rounded_as_it_is_in_the_table_beside_it(counted: tuple[int, int]) -> None:
    """1 of 80 is 1.25 points: a tie, or not, by how a float is multiplied."""
    wins, n = counted
    delta = MetricDelta(
        task="dates",
        scorer="exact",
        direction=Direction.HIGHER,
        unit=Unit.FRACTION,
        outcome=Comparison.COMPARED,
        n=n,
        baseline=0.0,
        candidate=abs(wins) / n,
        change=wins / n,
    )
    table = str(Scale.of(delta).change(delta.change)).split("\N{NARROW NO-BREAK SPACE}")
    if table[0] != "≈":
        assert reason(delta, Standing.INFORMATIVE, 0.0).split()[2] == table[0]


@pytest.mark.parametrize(
    ("standing", "interval", "more", "said"),
    [
        (Standing.REGRESSED, (-0.05, 0.002), {"p_holm": 0.032}, "margin 1.0, p 0.032 after Holm"),
        (Standing.REGRESSED, (-0.05, -0.002), {"p_holm": 0.012}, "margin 1.0"),
        (Standing.OK, (-0.012, 0.02), {"harm_high": 0.009}, "at most 0.9 worse by its one-sided"),
        (Standing.IMPROVED, (-0.01, 0.1), {"harm_high": -0.002}, "at least 0.2 better by its one"),
        (Standing.OK, (-0.008, 0.02), {"harm_high": 0.005}, "margin 1.0"),
        (Standing.INCONCLUSIVE, (-0.05, -0.001), {"p_holm": 0.2}, "p 0.2 after Holm: undecided"),
        (Standing.INCONCLUSIVE, (-0.05, 0.01), {"p_holm": 0.4}, "margin 1.0: undecided"),
    ],
)
@pytest.mark.parametrize("direction", list(Direction))
def test_an_interval_that_seems_to_contradict_its_standing_is_explained(
    standing: Standing,
    interval: tuple[float, float],
    more: dict[str, float],
    said: str,
    direction: Direction,
) -> None:
    """The interval has two sides at 95 %; a standing rests on one, and on Holm's level."""
    low, high = interval if direction is Direction.HIGHER else (-interval[1], -interval[0])
    delta = MetricDelta(
        task="dates",
        scorer="exact",
        direction=direction,
        outcome=Comparison.COMPARED,
        n=100,
        change=(low + high) / 2,
        interval=Interval(low=low, high=high, level=0.95),
        **more,
    )
    found = reason(delta, standing, 0.01)
    assert said in found
    if "margin" in said:
        assert found.endswith(said)


def test_a_regression_within_the_margin_says_so() -> None:
    """What is tolerated is `least_effect`; the margin in the same line would be read as that."""
    delta = metric("a", 0.5, 0.49).delta
    within = "certain, although within the margin"
    assert reason(delta, Standing.REGRESSED, 0.05).endswith(within)
    assert within not in reason(delta, Standing.REGRESSED, 0.005)
    assert within not in reason(delta, Standing.OK, 0.05)


@pytest.mark.parametrize(
    ("margin", "unit", "said"),
    [
        (0.0025, Unit.FRACTION, "0.25"),
        (0.05, Unit.FRACTION, "5.0"),
        (1 / 30, Unit.FRACTION, "3.333"),
        (0.0, Unit.FRACTION, "0.0"),
        (1500.0, Unit.NUMBER, "1500"),
        (99_999.0, Unit.NUMBER, "99999"),
        (0.00125, Unit.NUMBER, "0.00125"),
    ],
)
def test_a_margin_is_what_somebody_wrote_and_is_not_rounded(
    margin: float, unit: Unit, said: str
) -> None:
    delta = metric("a", 0.5, 0.4).delta.model_copy(update={"unit": unit})
    assert reason(delta, Standing.OK, margin).partition(", margin ")[2].split(",")[0] == said
    shown = Scale.of(delta).showing(margin).detectable(margin, Direction.HIGHER)
    assert float(str(shown).split("\N{NARROW NO-BREAK SPACE}")[0]) == float(said)


def test_a_weighted_score_is_of_the_same_tasks_on_both_sides() -> None:
    """A task that a side has no score of would raise or lower that side alone."""
    named = (("a", 1.0), ("b", 3.0), ("c", 4.0))
    tasks = [SimpleNamespace(name=name, weight=weight) for name, weight in named]
    both = [metric("a", 0.5, 0.5), metric("b", 0.5, 0.5)]
    said = weighted_change([*both, metric("c", 0.1, None)], tasks)
    assert said == ("weighted score: 50.0 % → 50.0 % (+0.0 points)",)
    assert weighted_change([both[0], metric("b", 0.5, None)], tasks) == ()


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-0.045, 0.045, "may be no better than the best single adapter: its interval holds 0."),
        (0.0, 0.0, "may be no better"),
        (0.01, 0.1, "is better than"),
        (-0.1, -0.01, "is worse than"),
        (None, None, "was not measured"),
    ],
)
def test_the_page_says_in_words_what_a_merge_gained(
    low: float | None, high: float | None, says: str
) -> None:
    record = merge_of("blend")
    assert record.search is not None
    winner = record.search.finalists[0].model_copy(update={"low": low, "high": high})
    search = record.search.model_copy(update={"best_parent": "adapters/eu", "finalists": (winner,)})
    assert says in gained(search)
    page = html(passed(), Beside(merge=record.model_copy(update={"search": search})))
    assert f"<p>{gained(search)}</p>" in page
    itself = search.model_copy(update={"best_parent": "adapters/blend"})
    assert gained(itself).startswith("The search found no merge that is surely better")
    assert "not measured" in gained(search.model_copy(update={"winner": "nobody"}))
