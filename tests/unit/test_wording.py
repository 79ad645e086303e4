"""What a run cost, in words."""

from __future__ import annotations

import pytest

from adapterbot.records import EvalStats, Stage
from adapterbot.wording import cost

STAGES = (
    Stage(name="lock", seconds=600, cpu_seconds=30),
    Stage(name="load", seconds=30, cpu_seconds=60),
    Stage(name="evaluate", seconds=60, cpu_seconds=90),
)


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
