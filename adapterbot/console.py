"""How we talk while we work: on standard error only, as a bar on a terminal, as plain lines with a
percentage elsewhere, in foldable groups in a GitHub log, and as JSON lines where that was asked."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from adapterbot.gh import workflow

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 5.0
_TELLING = 0.02  # of a stage; what came before, the first batch or a warm-up, tells of no rest
LOG_FORMAT = "ADAPTERBOT_LOG_FORMAT"


def harmless_lines(text: str) -> str:
    """Text of several lines for a log, none of which can be taken for a workflow command."""
    return "".join(f"{workflow.harmless(line)}\n" for line in text.splitlines())


class HarmlessFormatter(logging.Formatter):
    """What libraries log, in which nothing can be taken for a workflow command: they quote the
    config of a model, which may be a stranger's."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless_lines(super().format(record)).rstrip("\n")


class JsonFormatter(logging.Formatter):
    """What libraries log, as a line of ours."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"logger": record.name, "message": super().format(record)}
        return json_line("library", fields, level=record.levelname.lower())


def json_line(event: str, fields: Mapping[str, object], *, level: str = "info") -> str:
    """One event of a log as JSON: ASCII only, so that no text in it can start a line, or hide, and
    no workflow command."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "level": level, "event": event, **fields})
    return workflow.harmless_json(line)


def wants_json(environment: Mapping[str, str]) -> bool:
    """Whether logs were asked for as JSON."""
    return environment.get(LOG_FORMAT) == "json"


def tame_library_logs() -> None:
    """Have every library log, and warn, in a way that no workflow command can hide in."""
    handler = logging.StreamHandler()
    if wants_json(os.environ):
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(HarmlessFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def _spelled(seconds: float) -> str:
    """`42 s`, `7 min`, `1 h 53 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class PlainListener:
    """One line per stage, and one every few seconds while a stage goes on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._started: dict[str, float] = {}
        self._last_line = 0.0

    def write(self, line: str) -> None:
        """One line, in which nothing can be taken for a workflow command."""
        self._command(workflow.harmless(line))

    def _command(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def opened(self, stage: str) -> None:
        self._started[stage] = self._last_line = time.monotonic()

    def closed(self, stage: str, seconds: float) -> None:
        self.write(f"{stage}: {seconds:.1f} s")

    def advanced(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES or not 0 < done < total:
            return
        self._last_line = now
        line = f"{stage}: {done / total:.0%} ({done}/{total})"
        if done >= _TELLING * total:
            left = (now - self._started.get(stage, now)) * (total - done) / done
            line += f", about {_spelled(left)} left"
        self.write(line)

    def said(self, message: str) -> None:
        self.write(f"  {message}")


class GroupListener(PlainListener):
    """As plain lines, each stage folded in a group of the Actions log."""

    def opened(self, stage: str) -> None:
        super().opened(stage)
        self._command(workflow.group(stage))

    def closed(self, stage: str, seconds: float) -> None:
        super().closed(stage, seconds)
        self._command(workflow.ENDGROUP)


class BarListener:
    """A bar for what is going on, and a line for what is done."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def opened(self, stage: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(stage, total=None)
        self._progress.start()

    def closed(self, stage: str, seconds: float) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._console.print(f"{stage:<10} {seconds:6.1f} s", style="dim", markup=False)

    def advanced(self, stage: str, done: int, total: int) -> None:
        del stage  # the bar's own label says it
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def said(self, message: str) -> None:
        self._console.print(f"  {message}", markup=False)


class JsonListener:
    """One JSON object a line: `stage_opened`, `progress`, `stage_closed` and `message`."""

    def __init__(self) -> None:
        self._last_line = 0.0

    def _write(self, event: str, **fields: object) -> None:
        sys.stderr.write(f"{json_line(event, fields)}\n")
        sys.stderr.flush()

    def opened(self, stage: str) -> None:
        self._last_line = time.monotonic()
        self._write("stage_opened", stage=stage)

    def closed(self, stage: str, seconds: float) -> None:
        self._write("stage_closed", stage=stage, seconds=round(seconds, 4))

    def advanced(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._write("progress", stage=stage, done=done, total=total)

    def said(self, message: str) -> None:
        self._write("message", message=message)


def listener_for(environment: Mapping[str, str]) -> PlainListener | BarListener | JsonListener:
    """What was asked for, or suits the place that we run in."""
    if wants_json(environment):
        return JsonListener()
    if environment.get("GITHUB_ACTIONS") == "true":
        return GroupListener()
    if sys.stderr.isatty():
        return BarListener()
    return PlainListener()
