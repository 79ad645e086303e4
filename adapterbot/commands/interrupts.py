"""A job that is being ended: the runner asks with SIGINT, then SIGTERM, and then kills.

The first signal ends the work, by an exception that no handler of errors takes for one of its own;
those after it are ignored, so that they do not also end the telling.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """We were asked to end. `name` is the signal's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class Interrupts:
    """Whether a signal ends the work, and which one came."""

    held: bool = False
    came: str = ""

    def hold(self) -> None:
        """From now on signals are only noted."""
        self.held = True

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.came = self.came or signal.Signals(number).name
        if not self.held:
            self.held = True
            raise Interrupted(self.came)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Signals end the work inside, until `hold`. Outside the main thread nothing changes."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found._arrive) for number in _SIGNALS}  # noqa: SLF001
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def answered_after() -> Iterator[None]:
    """Signals that come inside are answered at its end.

    Among what a large library does while it is imported are handlers that swallow every exception,
    and with it that of Ctrl-C. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number)) for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
