"""A Python function of the suite's judges the answer, in a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue, PrivateAttr

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Files
from adapterbot.eval.scorers.process import (
    OUTPUT_LIMIT,
    ProcessTimeout,
    descriptor,
    end,
    environment,
    start,
)
from adapterbot.eval.scorers.program import ProgramScorer, question, verdict
from adapterbot.strict_json import parse_json

# What runs in the other process. `-I` keeps the environment and the current directory out of
# sys.path; only the suite's own directory is let in. What the function prints goes to standard
# error, so that it cannot pass for a reply.
_WORKER = """
import importlib, json, os, sys
replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
def reply(value):
    replies.write(json.dumps(value) + "\\n")
    replies.flush()
sys.path.insert(0, os.getcwd())
try:
    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
except BaseException as error:
    reply({"fatal": f"{type(error).__name__}: {error}"})
    sys.exit(1)
reply({"ready": True})
for line in sys.stdin.buffer:
    sample = json.loads(line)
    try:
        answer = function(sample, sample["output"])
        if not isinstance(answer, (bool, int, float, dict)):
            answer = {"missing": f"the function returned a {type(answer).__name__}"}
        reply(answer)
    except Exception as error:
        reply({"missing": f"{type(error).__name__}: {error}"})
"""
_START_SECONDS = 60.0


class PythonFunction(ProgramScorer):
    """Calls `function(sample, output)` of `module` and takes the number it returns.

    `sample` is a dictionary (id, prompt, expected, choices, fields). `module` is dotted and
    relative to the suite: `checks.dates` is checks/dates.py beside it. It runs under this
    interpreter, isolated (`python -I`), and keeps running from sample to sample. A function that
    raises, or takes longer than `timeout`, leaves the sample unscored.
    """

    name: ClassVar[str] = "python"

    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    _worker: subprocess.Popen[bytes] | None = PrivateAttr(default=None)

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        module, named = options.get("module"), options.get("files", [])
        if not isinstance(module, str) or not isinstance(named, list):
            return options  # validation says what is wrong with them
        source = module.replace(".", "/") + ".py"
        wanted: list[JsonValue] = [*sorted({*map(str, named), source})]
        return super().resolve({**options, "files": wanted}, files)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        if self._worker is None:
            self._worker = self._start()
        try:
            return verdict(_ask(self._worker, question(sample, answer), self.timeout))
        except ProcessTimeout:
            reason = f"the function did not return in {self.timeout:g} s"
        except (OSError, EOFError):
            reason = "the function ended its process"
        except ValueError:
            reason = "the function returned what is not JSON"
        self._stop()
        return Scored(None, reason)

    def close(self) -> None:
        self._stop()
        super().close()

    def _start(self) -> subprocess.Popen[bytes]:
        directory = self.working_directory()
        worker = start(
            [sys.executable, "-I", "-c", _WORKER, self.module, self.function],
            directory=directory,
            env=environment(directory),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            greeting = _reply(worker, time.monotonic() + _START_SECONDS)
        except (ProcessTimeout, EOFError, ValueError):
            greeting = {"fatal": "it did not start"}
        if isinstance(greeting, dict) and "fatal" in greeting:
            end(worker)
            raise InputError(
                f"{self.module}:{self.function} cannot be loaded: {str(greeting['fatal'])[:300]}",
                field="scorer",
                fix="list every file it imports in the scorer's `files`",
            )
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
