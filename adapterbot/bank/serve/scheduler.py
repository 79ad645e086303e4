"""The one thread that drives the model: it takes jobs in, and no single job can stop it.

Jobs wait in a queue of bounded length; what does not fit is refused at once, which is all the
back-pressure that a client can act on.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.bank.serve.jobs import Job, Who
from adapterbot.bank.serve.live import Live
from adapterbot.bank.serve.metrics import Metrics
from adapterbot.bank.serve.running import Base, Choose, Running
from adapterbot.errors import AdapterbotError
from adapterbot.weights.memory import memory_ended

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
        rows: the most jobs answered at once.
        waiting: the most jobs that wait.
        per_tenant: the most jobs on one account, waiting or answered.
        prefill: the most prompt tokens, padding included, that are read between two steps.
        seconds: the most a job may take, waiting included.
    """

    rows: int = 64
    waiting: int = 256
    per_tenant: int = 16
    prefill: int = 8192
    seconds: float = 120.0


class Busy(Exception):
    """There is no room for a job now, or no more of it."""


class Changed(Exception):
    """A tenant's row is not the one that a job began with."""


class TooSlow(Exception):
    """A job's time is up."""


class Stopping(Exception):
    """The server is going down."""


class Scheduler:
    """Owns the model. `submit` may be called from any thread."""

    def __init__(
        self, base: Base, live: Live, choose: Choose, limits: Limits, metrics: Metrics
    ) -> None:
        self.limits = limits
        self._live = live
        self._metrics = metrics
        self._running = Running(base, choose, live.select)
        self._waiting: deque[Job] = deque()
        self._asking: Counter[Who] = Counter()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="bank-serve", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are being answered."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Takes a job in.

        Raises:
            Busy: too many wait, or too many of this tenant.
            Stopping: the server is going down.
        """
        with self._changed:
            if self._stopping:
                raise Stopping
            if len(self._waiting) >= self.limits.waiting:
                raise Busy("the server is at its limit of waiting requests")
            if self._asking[job.account] >= self.limits.per_tenant:
                raise Busy("as many requests as one user may have are being answered")
            self._asking[job.account] += 1
            self._waiting.append(job)
            self._changed.notify()
        if job.ask.tenant is not None:
            self._live.prefetch(job.ask.tenant)

    def stop(self) -> None:
        """Refuses new jobs, and ends those that there are with an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    # ------------------------------------------------------------ the thread

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not (self._stopping or self._waiting or self._running.jobs):
                    self._changed.wait()
                if self._stopping:
                    break
                new = self._admitted()
            self._turn(new)
        for job in (*self._waiting, *self._running.jobs):
            job.fail(Stopping())

    def _turn(self, new: list[Job]) -> None:
        """One round: those who joined read their prompts, then everybody gets a token."""
        running = list(self._running.jobs)
        try:
            self._expire()
            if new and (able := self._able(new)):
                self._join(able)
            if self._running.jobs and len(self._able(self._running.jobs)) == len(
                self._running.jobs
            ):
                self._metrics.rows.observe(len(self._running.jobs))
                self._step()
            self._running.drop_ended()
        except Exception as error:  # noqa: BLE001 the thread's outermost edge: one bad pass must
            # not leave every later job waiting for ever
            self._fail([*running, *new], error)
            self._running.clear()
        # By who stayed, not by who has been cancelled: that may happen at any moment.
        stayed = set(map(id, self._running.jobs))
        with self._changed:
            for job in (*running, *new):
                if id(job) not in stayed:
                    self._done(job)
            self._metrics.waiting.set(len(self._waiting))
            self._metrics.running.set(len(self._running.jobs))

    def _join(self, jobs: list[Job]) -> None:
        """What stops the prompts of new jobs from being read stops nobody else."""
        try:
            tokens = self._running.read(jobs)
        except Exception as error:  # noqa: BLE001 as in `_turn`
            self._fail(jobs, error)
        else:
            self._running.join(jobs, tokens)

    def _step(self) -> None:
        """A token for everybody; where memory ends, those who came last give way."""
        try:
            self._running.step()
        except RuntimeError as error:
            jobs = self._running.jobs
            if len(jobs) == 1 or not memory_ended(error):
                raise
            self._running.take_back()
            self._fail(jobs[len(jobs) // 2 :], error)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.failures.inc()
        # As text: the frames hold what the pass was made of, and a client may be slow to fetch what
        # has come of it.
        _LOG.error("a forward pass failed\n%s", "".join(traceback.format_exception(error)))
        error.__traceback__ = None
        full = memory_ended(error)
        for job in jobs:
            job.fail(Busy("the device's memory is full") if full else error)

    def _admitted(self) -> list[Job]:
        new: list[Job] = []
        now = time.monotonic()
        while self._waiting and len(self._running.jobs) + len(new) < self.limits.rows:
            job = self._waiting[0]
            longest = max((len(j.ask.prompt) for j in (*new, job)), default=0)
            if new and longest * (len(new) + 1) > self.limits.prefill:
                break
            self._waiting.popleft()
            if now > job.deadline:
                job.fail(TooSlow())
            if job.ended or job.cancelled:
                self._done(job)
            else:
                new.append(job)
        return new

    def _able(self, jobs: list[Job]) -> list[Job]:
        """Those whose tenant can be live; the others, whose user is gone, damaged or another by
        now, are failed."""
        try:
            self._live.select([job.ask for job in jobs])
        except AdapterbotError:
            for ask in {job.ask.tenant: job.ask for job in jobs}.values():
                try:
                    self._live.select([ask])
                except AdapterbotError as error:
                    for job in jobs:
                        if job.ask.tenant == ask.tenant:
                            job.fail(error)
        for job in jobs:
            if not job.ended and not self._live.is_of(job.ask):
                job.fail(Changed())
        return [job for job in jobs if not job.ended]

    def _expire(self) -> None:
        now = time.monotonic()
        for job in self._running.jobs:
            if now > job.deadline:
                job.fail(TooSlow())
        self._running.drop_ended()

    def _done(self, job: Job) -> None:
        self._asking[job.account] -= 1
        if not self._asking[job.account]:
            del self._asking[job.account]
        self._metrics.finished(job)
