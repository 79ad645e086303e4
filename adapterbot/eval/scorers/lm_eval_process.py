"""lm-eval's process, shared by all who ask about tasks of one directory at the same time.

To start it takes seconds, to load another task into it a fraction of one, as `lm_eval --tasks`
loads several.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from adapterbot.eval.scorers.process import environment
from adapterbot.eval.scorers.program import private_copy
from adapterbot.eval.scorers.worker import Worker, check_greeting

_START_SECONDS = 120.0
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

_taking = threading.Lock()
_processes: dict[str, LmEvalProcess] = {}


class LmEvalProcess:
    """A process for the tasks of one directory, in a private copy of its files."""

    def __init__(self, key: str, home: str, contents: Mapping[str, str]) -> None:
        self.users = 0
        self._key = key
        self._folder = private_copy(contents)
        self._here = Path(self._folder.name)
        env = {**environment(self._here), **_OFFLINE}
        argv = [sys.executable, "-I", "-c", _side(), home]
        self._worker = Worker(argv, self._here, env, _START_SECONDS)
        self._asking = threading.Lock()
        self._loaded: set[str] = set()

    def rows(self, task: Mapping[str, JsonValue], seconds: float) -> bytes:
        """What a task is, and what it asks of each document: the lines of `lm_eval_side.show`.

        Raises:
            Unready: lm-eval cannot load the task, or it is of a kind that we cannot evaluate.
            ProcessTimeout, EOFError, OSError, ValueError: there is no reply to be had.
        """
        with self._asking:
            written = self._here / f"requests-{len(self._loaded)}.jsonl"
            self._load(task, seconds, written.name)
            return written.read_bytes()

    def ask(
        self, task: Mapping[str, JsonValue], asked: Mapping[str, JsonValue], seconds: float
    ) -> JsonValue:
        """What a task says of the answers to one document. Raises as `rows`."""
        with self._asking:
            if json.dumps(task) not in self._loaded:
                self._load(task, _START_SECONDS, None)
            try:
                return self._worker.ask({**asked, "task": json.dumps(task)}, seconds)
            except BaseException:
                self._loaded.clear()
                raise

    def _load(self, task: Mapping[str, JsonValue], seconds: float, to: str | None) -> None:
        name = json.dumps(task)
        try:
            greeting = self._worker.ask({"load": {**task, "name": name, "to": to}}, seconds)
        except BaseException:
            self._loaded.clear()
            raise
        check_greeting(greeting)
        self._loaded.add(name)

    def leave(self) -> None:
        """Ends it, unless somebody else has taken it."""
        with _taking:
            self.users -= 1
            if self.users:
                return
            del _processes[self._key]
        self._worker.end()
        self._folder.cleanup()


def take(home: str, contents: Mapping[str, str]) -> LmEvalProcess:
    """The process for these files, to be left when it is no longer needed.

    Args:
        home: the tasks' directory, relative to the repository.
        contents: the text of every file in it, by its path in the repository.
    """
    key = json.dumps([home, dict(contents)], sort_keys=True)
    with _taking:
        found = _processes.get(key)
        if found is None:
            found = _processes[key] = LmEvalProcess(key, home, contents)
        found.users += 1
        return found


@cache
def _side() -> str:
    return Path(__file__).with_name("lm_eval_side.py").read_text(encoding="utf-8")
