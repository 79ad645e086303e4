"""Signals that ask a job to end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from adapterbot.commands.interrupts import Interrupted, ignored, interrupts, never_swallowed


@contextlib.contextmanager
def _telling_all_as_an_import_error() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise ImportError from error


def _imported(number: signal.Signals, went_on: list[bool], *, swallowing: bool) -> None:
    with never_swallowed():
        with contextlib.suppress(BaseException) if swallowing else contextlib.nullcontext():
            signal.raise_signal(number)
        went_on.append(True)


def test_an_import_that_swallows_every_exception_does_not_swallow_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGINT)
    went_on: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        _imported(signal.SIGINT, went_on, swallowing=True)
    assert went_on
    assert signal.getsignal(signal.SIGINT) is before


def test_an_import_that_swallows_nothing_ends_at_once() -> None:
    went_on: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        _imported(signal.SIGINT, went_on, swallowing=False)
    assert not went_on


def test_an_interrupt_that_an_import_tells_as_its_own_failure_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), never_swallowed(), _telling_all_as_an_import_error():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_job_that_is_ended_while_it_imports_says_so(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, interrupts() as asked:
        _imported(number, [], swallowing=True)
    assert caught.value.name == asked.came == number.name


def test_who_asked_for_nohup_is_not_hung_up_on() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts() as asked:
            signal.raise_signal(signal.SIGHUP)
        assert not asked.came
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_does_not_cut_off_what_the_first_has_us_say(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ignored():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_an_import_that_fails_says_so() -> None:
    with pytest.raises(ImportError), never_swallowed():
        raise ImportError
