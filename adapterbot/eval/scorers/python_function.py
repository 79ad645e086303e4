"""A Python function of the suite's judges the answer, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from adapterbot.errors import InputError
from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Files
from adapterbot.eval.scorers.program import question
from adapterbot.eval.scorers.worker import WorkerScorer

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


class PythonFunction(WorkerScorer):
    """Calls `function(sample, output)` of `module` and takes the number it returns.

    `sample` is a dictionary (id, prompt, expected, choices, fields). `module` is dotted and
    relative to the suite: `checks.dates` is checks/dates.py beside it. It runs under this
    interpreter, isolated (`python -I`), and keeps running from sample to sample. A function that
    raises, or takes longer than `timeout`, leaves the sample unscored.
    """

    name: ClassVar[str] = "python"
    what: ClassVar[str] = "the function"
    start_seconds: ClassVar[float] = 60.0

    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        module, named = options.get("module"), options.get("files", [])
        if not isinstance(module, str) or not isinstance(named, list):
            return options  # validation says what is wrong with them
        source = module.replace(".", "/") + ".py"
        wanted: list[JsonValue] = [*sorted({*map(str, named), source})]
        return super().resolve({**options, "files": wanted}, files)

    def score(self, sample: Sample, answer: Answer) -> Scored:
        return self.ask(question(sample, answer))

    def argv(self) -> list[str]:
        return [sys.executable, "-I", "-c", _WORKER, self.module, self.function]

    def unloadable(self, reason: str) -> InputError:
        return InputError(
            f"{self.module}:{self.function} cannot be loaded: {reason}",
            field="scorer",
            fix="list every file it imports in the scorer's `files`",
        )
