"""A measured figure, and the table they make."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Figure:
    """Ours beside what it is held against, measured in one run.

    `ratio` is ours over the other's: below 1 is better.
    """

    name: str
    setting: str
    ours: str
    other: str
    ratio: float


def timed(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds."""
    start = clock()
    run()
    return clock() - start


processor = partial(timed, clock=time.process_time)
"""As `timed`, of all threads, and blind to what else runs on the machine."""


def children() -> float:
    """Processor seconds of the processes of ours that have ended: a clock for `timed`."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(list(values))


def table(figures: Iterable[Figure]) -> str:
    """Markdown, a row per figure."""
    rows = ["| Figure | Setting | Ours | Against | Ratio |", "|---|---|---|---|---|"]
    rows += [f"| {f.name} | {f.setting} | {f.ours} | {f.other} | {f.ratio:.2f} |" for f in figures]
    return "\n".join(rows)
