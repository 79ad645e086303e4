"""The journal of a search: every finished probe on a line of its own, safe against kill −9.

The first line says what is searched; a journal of another search is refused. A line that was cut
off in writing is no probe.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.bisect.setting import Setting
from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.files.named import read_named
from adapterbot.records.base import Count, Digest, Finite, Line, Record, Seconds

MAX_BYTES = 64 * 1024 * 1024


class Heading(Record):
    """What a journal is about."""

    version: Literal[1] = 1
    search: Digest
    setting: Setting
    checkpoints: tuple[Checkpoint, ...] = Field(min_length=2, max_length=4096)


class Entry(Record):
    """One finished probe. `outcome`: true is bad, a number is a score, a list is what changed in
    each sample of a chunk, null is a checkpoint that cannot tell. `given`: measured before the
    search began, at an end. `until`: how many of the checkpoint's samples of this kind had been
    asked by then, scored or not."""

    index: int = Field(ge=-1, le=4096)
    kind: Count = 0
    outcome: bool | Finite | tuple[Finite, ...] | None
    seconds: Seconds = 0.0
    detail: Line = ""
    given: bool = False
    until: Count = 0


def heading(checkpoints: Sequence[Checkpoint], setting: Setting) -> Heading:
    """The first line of a search over these checkpoints in this setting."""
    # How sure one wants to be may change from one run to the next.
    how = setting.model_dump(mode="json", exclude={"confidence"})
    content = json.dumps([[[c.path, c.looks] for c in checkpoints], how], sort_keys=True)
    return Heading(
        search=hashlib.sha256(content.encode()).hexdigest(),
        setting=setting,
        checkpoints=tuple(checkpoints),
    )


def read(path: Path) -> tuple[Heading, tuple[Entry, ...]]:
    """A journal's heading and its finished probes.

    Raises:
        InputError: it is no journal, or a line before the last is damaged.
    """
    lines = read_named(path, limit=MAX_BYTES, fix="name a bisect journal").split(b"\n")
    try:
        first = Heading.model_validate_json(lines[0])
    except ValidationError as error:
        raise _damaged(path, 1) from error
    entries = []
    # Whatever follows the last newline was cut off in writing.
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError as error:
            raise _damaged(path, number) from error
        if entries[-1].index > len(first.checkpoints):
            raise _damaged(path, number)
    return first, tuple(entries)


def _damaged(path: Path, number: int) -> InputError:
    return InputError(
        "is not of a journal of bisect, or is damaged",
        file=str(path),
        field=f"line {number}",
        fix="start without it",
    )


def _refuse_in_use(path: Path) -> None:
    """Refuses a journal that a search elsewhere goes on writing: its probes would be lost.

    Raises:
        InputError: it does.
    """
    try:
        with path.open("r+b") as stream:  # NFS locks only what is open for writing
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            "is being written by another search",
            file=str(path),
            fix="wait until it has ended, or give this one another folder: --out",
        ) from error
    except OSError:
        return  # there is none, or the file system has no locks


class Journal:
    """An open journal; a context manager is not needed, as every line is on disk when written."""

    def __init__(self, path: Path, about: Heading, *, resume: bool) -> None:
        """Opens `path`, and reads what is in it when resuming; otherwise what was in it goes.

        Raises:
            InputError: it cannot be written, another process is writing it, or it belongs to
                another search (when resuming).
            OurFailure: the disk is full; what was in it stays.
        """
        self.path = path
        self.entries: list[Entry] = []
        self._writing = threading.Lock()
        _refuse_in_use(path)
        if resume and path.exists():
            found, entries = read(path)
            if found.search != about.search:
                raise InputError(
                    "belongs to another search: other checkpoints, weights written anew, or judged "
                    "in another way",
                    file=str(path),
                    field="--resume",
                    fix="resume with the same arguments, or start over without --resume",
                )
            self.entries = list(entries)
        kept = [about.model_dump_json(), *(entry.model_dump_json() for entry in self.entries)]
        atomic.write_text(path, "\n".join(kept) + "\n")
        self._stream = path.open("ab")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def add(self, entry: Entry) -> None:
        """One more finished probe, on disk before this returns; from any thread.

        Raises:
            OurFailure: it cannot be written.
        """
        with self._writing:
            try:
                self._stream.write(entry.model_dump_json().encode() + b"\n")
                self._stream.flush()
                os.fsync(self._stream.fileno())
            except OSError as error:
                raise atomic.not_written(self.path, error) from error
            self.entries.append(entry)
