"""Who waits and who is answered: every job is counted in once and out once, whatever it does."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adapterbot.bank.serve import running
from adapterbot.bank.serve.jobs import Ask, Job, Piece
from adapterbot.bank.serve.live import Live
from adapterbot.bank.serve.metrics import Metrics
from adapterbot.bank.serve.running import Choose
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


def job(
    limit: int,
    prompt: tuple[int, ...] = (3, 4, 5),
    deliver: Callable[[Piece], None] = lambda _: None,
) -> Job:
    ask = Ask(prompt, None, limit)
    deadline = time.monotonic() + 60
    return Job(
        ask, deliver, lambda ids: "x" * len(ids), frozenset(), deadline, ask.who, streamed=False
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


@contextmanager
def full(
    base: Any, when: Callable[[int, int], bool], said: str = "CUDA out of memory"
) -> Iterator[None]:
    """Memory ends in the second layer of every pass of so many rows and new tokens."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def look(_: object, __: object, hidden: torch.Tensor) -> None:
        assert not any(one() is not None for one in alive), "of a pass that failed"
        if when(*hidden.shape[:2]):
            alive.append(weakref.ref(hidden))
            raise (RuntimeError if "CUBLAS" in said else torch.OutOfMemoryError)(said)

    handle = base.model.model.layers[1].mlp.register_forward_hook(look)
    try:
        yield
        assert alive
    finally:
        handle.remove()


def answered(base: Any, jobs: list[Job], choose: Choose = greedy) -> None:
    scheduler = Scheduler(base, Live(None, {}), choose, Limits(prefill=9), Metrics())
    for one in jobs:
        scheduler.submit(one)
    scheduler.start()
    until = time.monotonic() + 60
    while not all(one.ended for one in jobs) and time.monotonic() < until:
        time.sleep(0.01)
    scheduler.stop()


def test_a_prompt_that_memory_does_not_hold_ends_nobody_elses_answer(base: Any) -> None:
    alone = job(12)
    answered(base, [alone])
    errors: list[Piece] = []
    early, long = job(12), job(12, (5,) * 9, errors.append)
    with full(base, lambda _, new: new == 9):
        answered(base, [early, long])
    assert early.answer == alone.answer
    assert len(alone.answer) == 12
    assert isinstance(errors[0].error, Busy)


@pytest.mark.parametrize("said", ["CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED"])
def test_where_memory_ends_those_who_came_last_give_way(base: Any, said: str) -> None:
    prompts: list[tuple[int, ...]] = [(3, 4, 5), (7, 8), (9, 9, 9), (4,), (6, 5)]
    alone = [job(12, prompt) for prompt in prompts]
    for one in alone:
        answered(base, [one])
    errors: list[Piece] = []
    together = [job(12, prompt, errors.append) for prompt in prompts]
    with full(base, lambda rows, new: rows > 3 and new == 1, said):
        answered(base, together)
    lost = [one.answer != whole.answer for one, whole in zip(together, alone, strict=True)]
    assert lost[:2] == [False, False]
    assert any(lost)
    assert sum(isinstance(piece.error, Busy) for piece in errors) == sum(lost)


def test_memory_may_end_as_tokens_are_chosen(base: Any) -> None:
    prompts: list[tuple[int, ...]] = [(3, 4, 5), (7, 8), (9, 9, 9)]
    alone = [job(12, prompt) for prompt in prompts]
    for one in alone:
        answered(base, [one])
    together = [job(12, prompt) for prompt in prompts]

    def short(logits: torch.Tensor, *_: object) -> list[int]:
        if len(logits) > 2 and together[0].answer:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return greedy(logits)

    answered(base, together, short)
    assert together[0].answer == alone[0].answer, "no token is read twice"
    assert len(together[0].answer) == 12


def test_memory_may_end_as_a_prompt_is_put_beside_the_others(
    base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = job(12)
    answered(base, [alone])
    errors: list[Piece] = []
    # Of the two layers the second does not fit any more.
    present, long = job(12), job(12, (5,) * 9, errors.append)
    filled, calls = running._filled, []

    def short(tensor: torch.Tensor, length: int, dimension: int) -> torch.Tensor:
        calls.append(dimension)
        if len(calls) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return filled(tensor, length, dimension)

    monkeypatch.setattr(running, "_filled", short)
    answered(base, [present, long])
    assert present.answer == alone.answer
    assert isinstance(errors[0].error, Busy)
