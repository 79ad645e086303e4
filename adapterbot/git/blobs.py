"""The blobs of a repository: one process hands out all that are held, and another their sizes."""

from __future__ import annotations

import atexit
import functools
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from adapterbot.errors import OurFailure
from adapterbot.git.program import command, environment_for, no_git

_OBJECT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def blob(repository: Path, object_id: str) -> bytes:
    """The content of one blob.

    All blobs of a repository come through one `git cat-file --batch`, which is started on the
    first of them: a process for each would cost seconds per thousand files.

    Raises:
        OurFailure: there is no such blob, or Git cannot read it.
    """
    return _reader(repository, "--batch").ask(object_id)[1]


def blob_size(repository: Path, object_id: str) -> int:
    """How many bytes a blob is, from one process for all of them. Asked only of what is read: a
    partial clone fetches a blob to tell.

    Raises:
        OurFailure: as `blob`.
    """
    return _reader(repository, "--batch-check").ask(object_id)[0]


@contextmanager
def blob_stream(repository: Path, object_id: str) -> Iterator[BinaryIO]:
    """One blob piece by piece, from a process of its own: for blobs too large to hold.

    Raises:
        OurFailure: Git cannot read it.
    """
    # The pipe is closed on leaving: whoever stops early must not leave Git writing to nobody.
    with (
        subprocess.Popen(
            command(repository, ["cat-file", "blob", object_id]),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment_for(repository),
        ) as process,
        cast("BinaryIO", process.stdout) as stream,
    ):
        yield stream
    if process.returncode > 0:
        raise OurFailure(f"git cat-file failed with exit code {process.returncode}")


@functools.lru_cache(maxsize=32)
def _reader(repository: Path, what: str) -> _Reader:
    reader = _Reader(repository, what)
    atexit.register(reader.close)
    return reader


class _Reader:
    """One `git cat-file`; asked by one thread at a time, started again when it ended.

    Args:
        what: `--batch` for contents, `--batch-check` for sizes alone.
    """

    def __init__(self, repository: Path, what: str) -> None:
        self._repository, self._what = repository, what
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, object_id: str) -> tuple[int, bytes]:
        """Size and, where it reads them, content of one blob."""
        if not _OBJECT_ID.fullmatch(object_id):  # a newline in it would be a second question
            raise OurFailure(f"{object_id!r} is not the name of a blob")
        with self._lock:
            try:
                return self._answer(object_id)
            except BaseException as error:
                # Whatever is left of this answer would be taken for the next one.
                self._end()
                if isinstance(error, BrokenPipeError):
                    raise OurFailure(f"git stopped before the blob {object_id[:12]}") from error
                raise

    def _answer(self, object_id: str) -> tuple[int, bytes]:
        asked, told = self._pipes()
        asked.write(f"{object_id}\n".encode())
        asked.flush()
        head = told.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise OurFailure(f"git has no blob {object_id[:12]}")
        size = int(head[2])
        if self._what != "--batch":
            return size, b""
        content = told.read(size)
        if len(content) != size or told.read(1) != b"\n":
            raise OurFailure(f"git stopped while reading the blob {object_id[:12]}")
        return size, content

    def close(self) -> None:
        with self._lock:
            self._end()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        if self._process is None or self._process.poll() is not None:
            try:
                self._process = subprocess.Popen(
                    command(self._repository, ["cat-file", self._what]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment_for(self._repository),
                )
            except FileNotFoundError as error:
                raise no_git() from error
        return cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()
