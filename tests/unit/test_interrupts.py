"""Signals that ask a job to end."""

from __future__ import annotations

import contextlib
import signal

import pytest

from adapterbot.commands.interrupts import Interrupted, answered_after, interrupts


def _swallowing(number: signal.Signals) -> None:
    with contextlib.suppress(BaseException):  # as libraries do while they are imported
        signal.raise_signal(number)


def test_an_import_that_swallows_every_exception_does_not_swallow_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), answered_after():
        _swallowing(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_ended_while_it_imports_says_so(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, interrupts() as asked, answered_after():
        _swallowing(number)
    assert caught.value.name == asked.came == number.name


def test_an_import_that_fails_says_so() -> None:
    with pytest.raises(ImportError), answered_after():
        raise ImportError
