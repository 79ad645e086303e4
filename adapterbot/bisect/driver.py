"""Runs a search over checkpoints: asks the posterior, probes, tells, and reports what came out.

It is given a way to probe one checkpoint and knows nothing of how that is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from adapterbot.bisect.conclusion import conclude
from adapterbot.bisect.journal import Entry, Journal
from adapterbot.bisect.search import Observation, Query, Search
from adapterbot.records import BisectResult

Prober = Callable[[int, int, int], Observation]
"""Probes one checkpoint; called with the parts of a `Query`."""

Together = Callable[[Sequence[Query]], Sequence[Observation]]
"""Makes several probes at once."""


@dataclass(frozen=True)
class Limits:
    """When to stop although the answer is not certain enough, and how much to do at once.

    Attributes:
        probes: at most so many probes, those of a resumed journal included.
        seconds: no new probe after this long.
        jobs: how many probes at the same time.
    """

    probes: int | None = None
    seconds: float | None = None
    jobs: int = 1

    def at_once(self, made: int) -> int:
        """How many probes may begin now, after so many."""
        return self.jobs if self.probes is None else min(self.jobs, self.probes - made)


DEFAULT_LIMITS = Limits()


def run(
    search: Search,
    probe: Prober,
    *,
    together: Together | None = None,
    limits: Limits = DEFAULT_LIMITS,
    journal: Journal | None = None,
    stop: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[str], None] = lambda _: None,
) -> BisectResult:
    """Find the first bad checkpoint.

    Args:
        search: what is searched; evidence from elsewhere has been taken already.
        probe: evaluates one checkpoint. It is called from `limits.jobs` threads.
        together: evaluates several; None leaves them to the threads.
        journal: where finished probes are kept; those in it are taken, not repeated.
        stop: ends the probes that go on in other threads; called when this one is interrupted.
    """
    for entry in journal.entries if journal else ():
        search.take(entry)
    started = clock()

    def finished(asked: Query, seen: Observation, seconds: float) -> tuple[Entry, Observation]:
        entry = _entry(asked, seen, seconds)
        # At once: another of its batch may take long, or fail.
        if journal:
            journal.add(entry)
        return entry, seen

    def one(asked: Query) -> tuple[Entry, Observation]:
        begun = clock()
        seen = probe(*asked)
        return finished(asked, seen, clock() - begun)

    def all_of(batch: Sequence[Query]) -> Iterable[tuple[Entry, Observation]]:
        # One at a time stays in this thread: a model is bound to the one that loaded it.
        if len(batch) == 1:
            return [one(batch[0])]
        if together is None:
            return _in_threads(workers, one, batch)
        begun = clock()
        seen = together(batch)
        each = (clock() - begun) / len(batch)
        return [finished(asked, of, each) for asked, of in zip(batch, seen, strict=True)]

    cut = False
    with ThreadPoolExecutor(max(limits.jobs, 1)) as workers:
        try:
            while True:
                count = limits.at_once(search.made)
                late = limits.seconds is not None and clock() - started >= limits.seconds
                cut = count <= 0 or late
                batch = [] if cut else search.next(count)
                if not batch:
                    break
                for entry, seen in all_of(search.counted(batch)):
                    search.take(entry, seen.shown())
                    label = search.checkpoints[entry.index].label
                    progress(f"{label}: {seen.shown().value} ({entry.detail})")
        except KeyboardInterrupt:
            stop()  # the pool waits for its threads, which may be at it for hours
            raise
    return conclude(search, cut=cut)


def _in_threads(
    workers: ThreadPoolExecutor,
    one: Callable[[Query], tuple[Entry, Observation]],
    batch: Sequence[Query],
) -> Iterator[tuple[Entry, Observation]]:
    """The probes of a batch, in its order; though one of them fails, the rest is waited for."""
    futures = [workers.submit(one, asked) for asked in batch]
    try:
        yield from (future.result() for future in futures)
    except Exception:
        # Not left to the pool: before Python 3.13 a thread for whose end one was waiting when
        # interrupted is taken for one that has ended.
        wait(futures)
        raise


def _entry(asked: Query, seen: Observation, seconds: float) -> Entry:
    outcome = seen.outcome
    return Entry(
        index=asked.checkpoint,
        kind=asked.kind,
        outcome=tuple(map(float, outcome)) if isinstance(outcome, np.ndarray) else outcome,
        seconds=max(0.0, seconds),
        detail=seen.detail[:2000],
        until=seen.until,
    )
