"""Traces for OpenTelemetry: a span for the run and one for each of its stages, sent over HTTP.

OpenTelemetry's own variables say where to and as whom (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `TRACEPARENT` …); without an endpoint nothing is
imported. What is sent are names, times and counts: no prompt, no answer, no path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterbot import __version__
from adapterbot.console import tame_library_logs
from adapterbot.stages import Listener

if TYPE_CHECKING:
    from adapterbot.records import Report

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# A collector that does not answer must not hold a job up.
_TIMEOUT = 5


class Trace:
    """A run that nobody traces: its listener is the one that was given."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def judged(self, report: Report) -> None:
        """What came of the run."""


@dataclass
class _Spans:
    """Passes everything on, and makes a span of each stage."""

    log: Listener
    tracer: Any
    _open: Any = None

    def opened(self, stage: str) -> None:
        self.log.opened(stage)
        self._open = self.tracer.start_span(stage)

    def closed(self, stage: str, seconds: float) -> None:
        self.log.closed(stage, seconds)
        if self._open is not None:
            self._open.end()
            self._open = None

    def advanced(self, stage: str, done: int, total: int) -> None:
        self.log.advanced(stage, done, total)

    def said(self, message: str) -> None:
        self.log.said(message)


class _OpenTrace(Trace):
    """A run with a span of its own."""

    def __init__(self, listener: Listener, tracer: Any, span: Any) -> None:
        super().__init__(_Spans(listener, tracer))
        self._span = span

    def judged(self, report: Report) -> None:
        for adapter in report.adapters:
            attributes: dict[str, str | int | float | bool] = {
                "adapterbot.adapter": adapter.key,
                "adapterbot.outcome": adapter.verdict.outcome.value,
                "adapterbot.fails": adapter.verdict.fails,
            }
            if adapter.eval:
                attributes |= {
                    "adapterbot.samples": adapter.eval.samples,
                    "adapterbot.cached": adapter.eval.cached,
                    "adapterbot.gpus": adapter.eval.gpus,
                }
            self._span.add_event("judged", attributes)


@contextmanager
def traced(listener: Listener, command: str, environment: Mapping[str, str]) -> Iterator[Trace]:
    """The trace of one run, sent when it ends, well or badly."""
    if not any(environment.get(name) for name in _ENDPOINTS):
        yield Trace(listener)
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        listener.said("no traces are sent: pip install 'adapterbot[otel]'")
        yield Trace(listener)
        return
    tame_library_logs()  # the exporter says there that a collector does not answer
    name = environment.get("OTEL_SERVICE_NAME", "adapterbot")
    resource = Resource.create({"service.name": name, "service.version": __version__})
    try:
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_TIMEOUT)))
    except ValueError as error:  # a variable of OpenTelemetry's that it cannot use
        listener.said(f"no traces are sent: {error}")
        yield Trace(listener)
        return
    tracer = provider.get_tracer("adapterbot", __version__)
    parent = TraceContextTextMapPropagator().extract(
        {"traceparent": environment.get("TRACEPARENT", "")}
    )
    try:
        with tracer.start_as_current_span(
            f"adapterbot {command}",
            context=parent,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _OpenTrace(listener, tracer, span)
            except Exception as error:
                # Its kind only: its words hold paths, and whatever a library quotes.
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise
    finally:
        provider.shutdown()
