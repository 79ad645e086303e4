"""Git as a program that reads: one command at a time, and a process that hands out blobs.

Nothing here knows of paths in a tree. Nothing of the repository (hooks, filters, fsmonitor) is
executed, and nothing is written.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from adapterbot.errors import OurFailure

_OBJECT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def git(repository: Path, *arguments: str, seconds: float | None = None) -> bytes:
    """Standard output of a Git command that reads.

    Args:
        seconds: how long one that asks a network may take.

    Raises:
        OurFailure: Git is not installed, or the command failed or took too long.
    """
    try:
        done = subprocess.run(
            _command(repository, arguments),
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            timeout=seconds,
        )
    except FileNotFoundError as error:
        raise _no_git() from error
    except subprocess.TimeoutExpired as error:
        raise OurFailure(f"git {arguments[0]} did not end within {error.timeout:g} s") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise OurFailure(
            f"git {arguments[0]} failed: {reason[-1] if reason else 'no reason given'}"
        )
    return done.stdout


def blob(repository: Path, object_id: str) -> bytes:
    """The content of one blob.

    All blobs of a repository come through one `git cat-file --batch`, which is started on the
    first of them: a process for each would cost seconds per thousand files.

    Raises:
        OurFailure: there is no such blob, or Git cannot read it.
    """
    return _reader(repository).read(object_id)


@contextmanager
def blob_stream(repository: Path, object_id: str) -> Iterator[BinaryIO]:
    """One blob piece by piece, from a process of its own: for blobs too large to hold.

    Raises:
        OurFailure: Git cannot read it.
    """
    # The pipe is closed on leaving: whoever stops early must not leave Git writing to nobody.
    with (
        subprocess.Popen(
            _command(repository, ["cat-file", "blob", object_id]),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        ) as process,
        cast("BinaryIO", process.stdout) as stream,
    ):
        yield stream
    if process.returncode > 0:
        raise OurFailure(f"git cat-file failed with exit code {process.returncode}")


def _command(repository: Path, arguments: Sequence[str]) -> list[str]:
    # Repository-local configuration that could run a program is off.
    off = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    return ["git", *off, "-C", str(repository), *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


def _no_git() -> OurFailure:
    return OurFailure("git was not found", fix="install git on this machine")


@functools.lru_cache(maxsize=32)
def _reader(repository: Path) -> _Reader:
    reader = _Reader(repository)
    atexit.register(reader.close)
    return reader


class _Reader:
    """One `git cat-file --batch`; asked by one thread at a time, started again when it ended."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, object_id: str) -> bytes:
        if not _OBJECT_ID.fullmatch(object_id):  # a newline in it would be a second question
            raise OurFailure(f"{object_id!r} is not the name of a blob")
        with self._lock:
            asked, told = self._pipes()
            try:
                asked.write(f"{object_id}\n".encode())
                asked.flush()
                head = told.readline().split()
                if len(head) != 3 or head[1] != b"blob":
                    # An answer of another shape has a body that nobody will read.
                    self._end()
                    raise OurFailure(f"git has no blob {object_id[:12]}")
                size = int(head[2])
                content = told.read(size)
                if len(content) != size or told.read(1) != b"\n":
                    self._end()
                    raise OurFailure(f"git stopped while reading the blob {object_id[:12]}")
            except BrokenPipeError as error:
                self._end()
                raise OurFailure(f"git stopped before the blob {object_id[:12]}") from error
            except BaseException:
                # Interrupted half-way, the rest of this blob would be taken for the next one.
                self._end()
                raise
            return content

    def close(self) -> None:
        with self._lock:
            self._end()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        if self._process is None or self._process.poll() is not None:
            try:
                self._process = subprocess.Popen(
                    _command(self._repository, ["cat-file", "--batch"]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                )
            except FileNotFoundError as error:
                raise _no_git() from error
        return cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()
