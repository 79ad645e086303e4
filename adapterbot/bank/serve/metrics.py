"""Metrics for Prometheus. No tenant is a label: there are thousands, and names are private."""

from __future__ import annotations

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from adapterbot.bank.serve.jobs import Job

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self.requests = Counter(
            "adapterbot_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self.waiting = Gauge("adapterbot_waiting_jobs", "Jobs in the queue.", registry=registry)
        self.running = Gauge("adapterbot_running_jobs", "Rows of the batch.", registry=registry)
        self.failures = Counter(
            "adapterbot_failed_passes", "Forward passes that failed.", registry=registry
        )
        self.rows = Histogram(
            "adapterbot_batch_rows", "Rows of each pass.", buckets=_ROWS, registry=registry
        )
        self._tokens = Counter("adapterbot_tokens", "Tokens.", ("kind",), registry=registry)
        self._first = Histogram(
            "adapterbot_first_token_seconds",
            "From arrival to the first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "adapterbot_job_seconds",
            "From arrival to the end.",
            buckets=_SECONDS,
            registry=registry,
        )

    def finished(self, job: Job) -> None:
        """A job has ended, one way or another."""
        self._tokens.labels("prompt").inc(len(job.ask.prompt))
        self._tokens.labels("answer").inc(len(job.answer))
        self._whole.observe(time.monotonic() - job.arrived)
        if job.first_token is not None:
            self._first.observe(job.first_token - job.arrived)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)
