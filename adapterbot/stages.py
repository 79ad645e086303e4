"""Where a run's time goes, and what it is doing now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from adapterbot.records import Stage


class Listener(Protocol):
    """Somebody who wants to know how far we are: a terminal, or a CI log."""

    def opened(self, stage: str) -> None:
        """A stage began."""

    def closed(self, stage: str, seconds: float) -> None:
        """A stage ended, well or badly."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of the stage are finished."""

    def said(self, message: str) -> None:
        """One line worth knowing."""


@dataclass
class Stages:
    """Names and times the stages of one run."""

    listener: Listener
    finished: list[Stage] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time one stage; yields a function to report progress with."""
        self.listener.opened(name)
        started, cpu_started = time.monotonic(), time.process_time()
        try:
            yield lambda done, total: self.listener.advanced(name, done, total)
        finally:
            seconds = time.monotonic() - started
            cpu_seconds = time.process_time() - cpu_started
            self.finished.append(
                Stage(name=name, seconds=round(seconds, 4), cpu_seconds=round(cpu_seconds, 4))
            )
            self.listener.closed(name, seconds)
