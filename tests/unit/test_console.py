"""The lines that a log gets while something long goes on."""

from __future__ import annotations

import io

import pytest

from adapterbot import console
from adapterbot.console import PlainListener


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "done", "line"),
    [
        (4.9, 50, ""),  # a log is no terminal: not a line for every step
        (6, 1, "evaluate: 0% (1/1000)"),  # one sample tells nothing of the others
        (6, 20, "evaluate: 2% (20/1000), about 5 min left"),
        (60, 600, "evaluate: 60% (600/1000), about 40 s left"),
        (600, 81, "evaluate: 8% (81/1000), about 1 h 53 min left"),
        (60, 1000, ""),
    ],
)
def test_what_is_left_is_told_once_there_is_something_to_tell_it_by(
    monkeypatch: pytest.MonkeyPatch, seconds: float, done: int, line: str
) -> None:
    clock, log = Clock(), io.StringIO()
    monkeypatch.setattr(console, "time", clock)
    listener = PlainListener(log)
    listener.opened("evaluate")
    clock.now += seconds
    listener.advanced("evaluate", done, 1000)
    assert log.getvalue().strip() == line
