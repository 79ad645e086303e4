"""Which way is taken, with a clock of the test's own: no GPU is needed to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from adapterbot.weights.fastest import bucket, fastest

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


class Clock:
    """Takes what a call returns for its time, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, call: Callable[[], object], device: torch.device) -> float:
        self.asked += 1
        return float(call())


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def choose(shape: object, clock: Clock, device: torch.device = CUDA, **times: float) -> str:
    ways = {way: lambda time=time: time for way, time in times.items()}
    return fastest((__file__, shape), lambda: ways, default="slow", device=device, clock=clock)


def test_the_least_time_wins_and_each_shape_is_measured_once() -> None:
    clock = Clock()
    assert choose(1, clock, slow=3.0, quick=1.0, broken=float("inf")) == "quick"
    assert clock.asked == 3
    assert choose(1, clock, slow=0.0, quick=9.0) == "quick"
    assert clock.asked == 3
    assert choose(2, clock, slow=1.0, quick=2.0) == "slow"
    assert choose(1, clock, torch.device("cuda:1"), slow=1.0, quick=2.0) == "slow"
    assert clock.asked == 7


def test_where_nothing_can_be_measured_the_default_is_taken() -> None:
    assert choose("all", Clock(), quick=float("inf"), slow=float("inf")) == "slow"


def test_nothing_is_measured_away_from_cuda() -> None:
    clock = Clock()
    assert choose("cpu", clock, CPU, slow=3.0, quick=1.0) == "slow"
    assert clock.asked == 0


@pytest.mark.usefixtures("deterministic")
def test_a_deterministic_run_takes_the_same_way_whatever_was_measured() -> None:
    clock = Clock()
    assert choose(1, clock, slow=3.0, quick=1.0) == "slow"
    assert choose("new", clock, slow=3.0, quick=1.0) == "slow"
    assert clock.asked == 0


def test_shapes_share_a_bucket_by_octaves() -> None:
    assert bucket(256) == bucket(511) != bucket(512)
