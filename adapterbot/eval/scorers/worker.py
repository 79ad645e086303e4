"""A program that judges one answer after another: a line of JSON there, a line back."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
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
from adapterbot.files.strict_json import parse_json


class Unready(Exception):
    """The program said, instead of a greeting, why it cannot judge."""


class Worker:
    """A process that keeps running from question to question.

    It greets with {"ready": true}, or says {"fatal": why}. One that gives no reply, or none in
    time, is ended; the next question starts another.
    """

    def __init__(
        self, argv: Sequence[str], directory: Path, env: Mapping[str, str], seconds: float
    ) -> None:
        """
        Args:
            directory: in which it runs.
            seconds: how long it may take to greet.
        """
        self._argv = argv
        self._directory = directory
        self._env = env
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, asked: Mapping[str, JsonValue], seconds: float) -> JsonValue:
        """What it replies.

        Raises:
            Unready: it greeted otherwise.
            ProcessTimeout, EOFError, OSError, ValueError: there is no reply to be had.
        """
        if self._process is None:
            self._process = self._start()
        try:
            return _ask(self._process, asked, seconds)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Ends the process, if one runs."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        process = start(
            self._argv,
            directory=self._directory,
            env=self._env,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            check_greeting(_reply(process, time.monotonic() + self._seconds))
        except (ProcessTimeout, EOFError, ValueError):
            end(process)
            raise Unready("it did not start") from None
        except Unready:
            end(process)
            raise
        return process


def check_greeting(greeting: JsonValue) -> None:
    """
    Raises:
        Unready: it is none.
    """
    if isinstance(greeting, dict) and "fatal" in greeting:
        raise Unready(str(greeting["fatal"])[:300])


class ReplyingScorer(ProgramScorer):
    """A scorer that asks a process which keeps running from sample to sample.

    One that takes longer than `timeout` for a sample, or ends, leaves that sample unscored and is
    started again for the next.

    what: what runs in it, for the reasons of unscored samples.
    """

    what: ClassVar[str]

    @abstractmethod
    def reply(self, asked: Mapping[str, JsonValue]) -> JsonValue:
        """As `Worker.ask`, within `timeout`."""

    @abstractmethod
    def unloadable(self, reason: str) -> InputError:
        """The error where it says, instead of a greeting, why it cannot judge."""

    def ask(self, asked: Mapping[str, JsonValue]) -> Scored:
        """The verdict on one sample.

        Raises:
            InputError: what it should run cannot be loaded.
        """
        try:
            return verdict(self.reply(asked))
        except Unready as error:
            raise self.unloadable(str(error)) from None
        except ProcessTimeout:
            reason = f"{self.what} did not return in {self.timeout:g} s"
        except (OSError, EOFError):
            reason = f"{self.what} ended its process"
        except ValueError:
            reason = f"{self.what} returned what is not JSON"
        return Scored(None, reason)


class WorkerScorer(ReplyingScorer):
    """One with a process of its own.

    start_seconds: how long it may take to greet.
    """

    start_seconds: ClassVar[float]
    _worker: Worker | None = PrivateAttr(default=None)

    @abstractmethod
    def argv(self) -> list[str]:
        """What is started in the working directory."""

    def reply(self, asked: Mapping[str, JsonValue]) -> JsonValue:
        if self._worker is None:
            here = self.working_directory()
            self._worker = Worker(self.argv(), here, environment(here), self.start_seconds)
        return self._worker.ask(asked, self.timeout)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None
        super().close()


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
