"""The line and the chart of a broken history."""

from __future__ import annotations

from adapterbot.pages import suspects
from adapterbot.records import BisectResult, BisectVerdict, Suspicion


def found(checkpoints: int, *shares: tuple[int, float]) -> BisectResult:
    return BisectResult(
        verdict=BisectVerdict.BROKEN_WITHIN,
        checkpoints=checkpoints,
        suspicions=tuple(
            Suspicion(index=i, label=f"checkpoint-{i}", probability=p) for i, p in shares
        ),
    )


def test_a_line_has_a_sign_for_each_checkpoint() -> None:
    assert suspects.line(found(5, (3, 1.0))) == "▁▁▁█▁"
    assert suspects.line(found(4, (2, 0.5), (1, 0.3))) == "▁▃▅▁"


def test_a_long_history_shares_signs_and_keeps_its_probability() -> None:
    shown = suspects.line(found(1000, (499, 0.5), (500, 0.5), (9_999, 0.1)))
    assert shown
    assert shown == "▁" * 19 + "▅▅" + "▁" * 19


def test_nothing_is_drawn_of_what_nobody_suspects_or_a_stranger_claims() -> None:
    assert suspects.line(found(5)) is None
    assert suspects.line(found(10**9, (3, 1.0))) is None
    assert suspects.chart(found(5, (1, 0.5), (2, 0.5))) is None


def test_a_chart_is_in_the_order_of_the_history() -> None:
    chart = suspects.chart(found(9, (5, 0.2), (3, 0.7), (4, 0.1)))
    assert chart
    assert 'x-axis ["checkpoint-3", "checkpoint-4", "checkpoint-5"]' in chart
    assert "bar [70, 10, 20]" in chart
