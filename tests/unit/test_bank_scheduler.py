"""Who waits and who is answered: every job is counted in once and out once, whatever it does."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapterbot.bank.serve.jobs import Ask, Job
from adapterbot.bank.serve.live import Live
from adapterbot.bank.serve.metrics import Metrics
from adapterbot.bank.serve.scheduler import Busy, Limits, Scheduler
from tests.bank_worlds import load
from tests.tiny_models import save_base


class GoneAt(threading.Event):
    """A client who has gone by the time that somebody looks for the n-th time."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self._left = look

    def is_set(self) -> bool:
        self._left -= 1
        return self._left <= 0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = load(save_base("llama", tmp_path_factory.mktemp("base")))
    return SimpleNamespace(
        model=model,
        tokenizer=None,
        device=torch.device("cpu"),
        eos=frozenset[int](),
        pad=0,
        context=256,
    )


def greedy(logits: torch.Tensor, *_: object) -> list[int]:
    found: list[int] = logits.argmax(-1).tolist()
    return found


def job(limit: int) -> Job:
    ask = Ask((3, 4, 5), None, limit)
    deadline = time.monotonic() + 60
    return Job(
        ask, lambda _: None, lambda ids: "x" * len(ids), frozenset(), deadline, streamed=False
    )


@pytest.mark.parametrize("look", range(1, 14))
def test_a_client_may_go_at_any_moment(base: Any, look: int) -> None:
    metrics = Metrics()
    limits = Limits(per_tenant=2)
    scheduler = Scheduler(base, Live(None, {}), greedy, limits, metrics)
    going, staying = job(50), job(8)
    going._cancelled = GoneAt(look)
    scheduler.submit(going)
    scheduler.submit(staying)
    with pytest.raises(Busy):
        scheduler.submit(job(1))
    scheduler.start()
    until = time.monotonic() + 60
    while scheduler._asking and time.monotonic() < until:
        time.sleep(0.01)
    scheduler.stop()
    assert not scheduler._asking, "nobody is asked for any more, and nobody less than nobody"
    assert b"adapterbot_job_seconds_count 2.0" in metrics.text()
