"""A program that judges one answer after another: a line of JSON there, a line back."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from adapterbot.errors import InputError
from adapterbot.eval.answers import Scored
from adapterbot.eval.scorers.process import (
    OUTPUT_LIMIT,
    ProcessTimeout,
    descriptor,
    end,
    environment,
    start,
)
from adapterbot.eval.scorers.program import ProgramScorer, verdict
from adapterbot.strict_json import parse_json


class WorkerScorer(ProgramScorer):
    """A scorer whose process keeps running from sample to sample.

    It greets with {"ready": true}, or says {"fatal": why}. One that takes longer than `timeout`
    for a sample, or ends, leaves that sample unscored and is started again for the next.

    what: what runs in it, for the reasons of unscored samples.
    start_seconds: how long it may take to greet.
    """

    what: ClassVar[str]
    start_seconds: ClassVar[float]
    _worker: subprocess.Popen[bytes] | None = PrivateAttr(default=None)

    @abstractmethod
    def argv(self) -> list[str]:
        """What is started in the working directory."""

    @abstractmethod
    def unloadable(self, reason: str) -> InputError:
        """The error where it says, instead of a greeting, why it cannot judge."""

    def environment(self, home: Path) -> dict[str, str]:
        """What it may know of ours."""
        return environment(home)

    def ask(self, asked: Mapping[str, JsonValue]) -> Scored:
        """The verdict on one sample.

        Raises:
            InputError: what it should run cannot be loaded.
        """
        if self._worker is None:
            self._worker = self._start()
        try:
            return verdict(_ask(self._worker, asked, self.timeout))
        except ProcessTimeout:
            reason = f"{self.what} did not return in {self.timeout:g} s"
        except (OSError, EOFError):
            reason = f"{self.what} ended its process"
        except ValueError:
            reason = f"{self.what} returned what is not JSON"
        self._stop()
        return Scored(None, reason)

    def close(self) -> None:
        self._stop()
        super().close()

    def _start(self) -> subprocess.Popen[bytes]:
        directory = self.working_directory()
        worker = start(
            self.argv(),
            directory=directory,
            env=self.environment(directory),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            greeting = _reply(worker, time.monotonic() + self.start_seconds)
        except (ProcessTimeout, EOFError, ValueError):
            greeting = {"fatal": "it did not start"}
        if isinstance(greeting, dict) and "fatal" in greeting:
            end(worker)
            raise self.unloadable(str(greeting["fatal"])[:300])
        return worker

    def _stop(self) -> None:
        if self._worker is not None:
            end(self._worker)
            self._worker = None


def _ask(
    worker: subprocess.Popen[bytes], asked: Mapping[str, JsonValue], seconds: float
) -> JsonValue:
    """One line there, one line back.

    Raises:
        ProcessTimeout, EOFError, OSError, ValueError: there is no reply to be had.
    """
    deadline = time.monotonic() + seconds
    pipe = descriptor(worker.stdin)
    os.set_blocking(pipe, False)
    left = memoryview(json.dumps(asked).encode() + b"\n")
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_WRITE)
        while left:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise ProcessTimeout
            left = left[os.write(pipe, left) :]
    return _reply(worker, deadline)


def _reply(worker: subprocess.Popen[bytes], deadline: float) -> JsonValue:
    pipe = descriptor(worker.stdout)
    line = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise ProcessTimeout
            chunk = os.read(pipe, OUTPUT_LIMIT)
            if not chunk:
                raise EOFError
            line += chunk
            if len(line) > OUTPUT_LIMIT:
                raise ValueError("the reply is too long")
    return parse_json(line.decode("utf-8", "replace"))
