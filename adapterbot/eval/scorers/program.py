"""What `command` and `python` share: the files they run with, and what is asked and answered.

The files are taken in when the suite is read, so that what runs is what the suite's ref holds,
whatever the working tree does later, and so that a change to them changes the task's digest.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue, PrivateAttr

from adapterbot.eval.answers import Answer, Sample, Scored
from adapterbot.eval.scorers.base import Files, Scorer
from adapterbot.files import scratch
from adapterbot.files.paths import normalise
from adapterbot.records import Finite, ScoreKind, Unit

FilePath = Annotated[str, Field(min_length=1, max_length=1000)]
_REASON_LIMIT = 300


class ProgramScorer(Scorer):
    """A scorer that is a program of the suite's own.

    files: the files it needs, relative to the suite; nothing else of the repository is there.
    timeout: seconds for one sample.
    contents, directory: the files' text by repository path, and the suite's own directory;
        filled in when the suite is read.
    """

    kind: ClassVar[ScoreKind] = ScoreKind.CONTINUOUS
    unit: ClassVar[Unit] = Unit.NUMBER

    derived: ClassVar[frozenset[str]] = frozenset({"contents", "directory"})

    files: tuple[FilePath, ...] = ()
    timeout: Annotated[Finite, Field(gt=0, le=3600)] = 30.0
    contents: Mapping[FilePath, str] = {}
    directory: str = ""
    _folder: tempfile.TemporaryDirectory[str] | None = PrivateAttr(default=None)

    @classmethod
    def resolve(cls, options: Mapping[str, JsonValue], files: Files) -> Mapping[str, JsonValue]:
        named = options.get("files", [])
        wanted = (
            [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
        )
        contents: dict[str, JsonValue] = {files.path(name): files.text(name) for name in wanted}
        return {**options, "contents": contents, "directory": files.directory}

    def working_directory(self) -> Path:
        """A private copy of the files, laid out as in the repository; the suite's directory."""
        if self._folder is None:
            self._folder = private_copy(self.contents)
        here = Path(self._folder.name) / normalise(self.directory)
        here.mkdir(parents=True, exist_ok=True)
        return here

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def private_copy(contents: Mapping[str, str]) -> tempfile.TemporaryDirectory[str]:
    """A folder with files of these texts, by their repository paths.

    Raises:
        OurFailure: no temporary file can be written.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="adapterbot-scorer-")
        for name, text in contents.items():
            target = Path(folder.name) / normalise(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            target.chmod(0o700)
    except OSError as error:
        raise scratch.not_written(error) from error
    return folder


def question(sample: Sample, answer: Answer) -> dict[str, JsonValue]:
    """What a program is told: the sample, and the model's `output`."""
    return {
        "id": sample.id,
        "prompt": sample.prompt,
        "expected": sample.expected,
        "choices": list(sample.choices),
        "fields": dict(sample.fields),
        "output": answer.text,
    }


def verdict(reply: JsonValue) -> Scored:
    """A program's reply: a number, true or false, or {"score": …} or {"missing": "why"}."""
    if isinstance(reply, dict):
        missing = reply.get("missing")
        if isinstance(missing, str) and missing:
            return Scored(None, missing[:_REASON_LIMIT])
        reply = reply.get("score")
    if isinstance(reply, bool | int | float) and math.isfinite(reply):
        return Scored(float(reply))
    return Scored(None, "the scorer replied with no number")


def last_line(errors: bytes) -> str:
    """The last line that a program wrote to standard error, clipped."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:_REASON_LIMIT] if lines else "no reason given"
