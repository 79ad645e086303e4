"""What a gate tells those who watch it: JSON lines in the log, traces at a collector, its cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from adapterbot.console import PlainListener
from adapterbot.records import Report
from adapterbot.telemetry import traced
from tests import command_line, example

_FAILS = """
import os
from adapterbot.console import PlainListener
from adapterbot.telemetry import traced
with traced(PlainListener(), "gate", os.environ):
    raise ValueError("s3cret")
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    """Takes traces as a collector does: OTLP over HTTP, in protocol buffers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        assert self.headers["content-type"] == "application/x-protobuf"
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(
                {a.key: a.value.string_value for a in group.resource.attributes}
            )
            for scope in group.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def watched(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """One gate, watched in every way."""
    repository = example.build(tmp_path_factory.mktemp("watched") / "repository", "clean")
    done = command_line.run(
        *("--log-format", "json", "gate", "--base", "main", "--head", "HEAD"),
        *("--device", "cpu", "--json"),
        cwd=repository,
        env={
            **os.environ,
            "ADAPTERBOT_CACHE": str(repository.parent / "scores"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "adapters of acme",
            "TRACEPARENT": PARENT,
        },
    )
    assert done.returncode == 0, done.stderr
    return done


STAGES = ["lock", "read", "import", "load", "scan", "evaluate", "self-check", "decide"]


def test_a_log_is_one_object_a_line(watched: subprocess.CompletedProcess[str]) -> None:
    events = [json.loads(line) for line in watched.stderr.splitlines()]
    assert all(event.keys() >= {"time", "level", "event"} for event in events)
    for kind in ("stage_opened", "stage_closed"):
        stages = [event["stage"] for event in events if event["event"] == kind]
        assert stages == [*STAGES, "render"]


def test_a_report_says_where_the_time_went_and_what_it_cost(
    watched: subprocess.CompletedProcess[str],
) -> None:
    (adapter,) = Report.model_validate_json(watched.stdout).adapters
    assert [stage.name for stage in adapter.stages] == STAGES
    assert sum(stage.cpu_seconds for stage in adapter.stages) > 0
    assert adapter.eval
    assert adapter.eval.gpus == 0


def test_a_collector_gets_a_span_for_the_run_and_one_for_each_stage(
    watched: subprocess.CompletedProcess[str], collector: Collector
) -> None:
    (adapter,) = Report.model_validate_json(watched.stdout).adapters
    assert {r["service.name"] for r in collector.resources} == {"adapters of acme"}
    root = next(span for span in collector.spans if span.name == "adapterbot gate")
    _, trace_id, parent_id, _ = PARENT.split("-")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (trace_id, parent_id)
    stages = [span for span in collector.spans if span is not root]
    assert sorted(span.name for span in stages) == sorted([*STAGES, "render"])
    assert all(span.parent_span_id == root.span_id for span in stages)
    for span in stages:
        assert root.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    (event,) = root.events
    found = {a.key: a.value for a in event.attributes}
    assert found["adapterbot.outcome"].string_value == adapter.verdict.outcome
    sent = b"".join(span.SerializeToString() for span in collector.spans)
    assert adapter.samples == () or adapter.samples[0].prompt.encode() not in sent


def test_attack_what_an_error_says_is_not_sent() -> None:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [sys.executable, "-c", _FAILS],
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
            capture_output=True,
            check=False,
        )
        server.shutdown()
    assert b"ValueError: s3cret" in done.stderr
    (span,) = server.spans
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "ValueError")
    assert b"s3cret" not in span.SerializeToString()
    assert str(Path(__file__).parent.parent.parent).encode() not in span.SerializeToString()


def test_a_collector_that_is_not_there_costs_the_gate_nothing(tmp_path: Path) -> None:
    """The error of a command, here for a lack of a repository, stays its own, and ends at once."""
    done = command_line.run(
        *("--log-format", "json", "gate", "--base", "main"),
        cwd=tmp_path,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        timeout=60,
    )
    assert done.returncode == 2
    events = [json.loads(line) for line in done.stderr.splitlines()]
    errors = [event["message"] for event in events if event["level"] == "error"]
    assert any("not inside a Git checkout" in message for message in errors)
    assert any("export" in message for message in errors), "a collector's silence is said, too"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-5"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "x"),
    ],
)
def test_a_setting_that_opentelemetry_refuses_costs_the_traces_and_not_the_run(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, value)
    with traced(PlainListener(), "gate", os.environ) as trace:
        trace.listener.said("judged")
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("  no traces are sent: ")
    assert told[1:] == ["  judged"]
