"""A job that is being ended: the runner asks with SIGINT, then SIGTERM, and then kills; a terminal
that is closed, with SIGHUP.

The first signal ends the work, by an exception that no error handler mistakes for one of its own;
later ones are ignored, so that they do not also cut off the report.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler = Callable[[int, FrameType | None], object] | signal.Handlers


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
    with _handled(dict.fromkeys(_SIGNALS, found._arrive)):  # noqa: SLF001
        yield found


@contextmanager
def ignored() -> Iterator[None]:
    """Signals do nothing inside: who is ending already says so, and ends as it says."""
    with _handled(dict.fromkeys(_SIGNALS, signal.SIG_IGN)):
        yield


@contextmanager
def never_swallowed() -> Iterator[None]:
    """An interrupt inside ends the work at the end of the block, if it did not at once.

    Among what a large library does while it is imported are handlers of every exception, which
    swallow that of Ctrl-C or tell it as one of their own. Outside the main thread nothing changes.
    """
    came: list[KeyboardInterrupt] = []
    before = {number: h for number in _SIGNALS if callable(h := signal.getsignal(number))}

    def arrive(number: int, frame: FrameType | None) -> None:
        try:
            before[signal.Signals(number)](number, frame)
        except KeyboardInterrupt as interrupt:
            came.append(interrupt)
            raise

    try:
        with _handled(dict.fromkeys(before, arrive)):
            yield
    finally:
        if came:
            raise came[0]


@contextmanager
def _handled(handlers: Mapping[signal.Signals, _Handler]) -> Iterator[None]:
    """These handlers inside, the former ones after; only the main thread may exchange them. A
    SIGHUP that is ignored stays so: `nohup` asked for it."""
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
