"""Programs that a suite names: argv without a shell, an environment without secrets, a time
limit, bounded output, and nothing of their process group left behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adapterbot.errors import OurFailure
from adapterbot.files import scratch

_SHELL = "/bin/sh"
OUTPUT_LIMIT = 64 * 1024
_LAST_BYTES = 1024 * 1024
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ")
_POLL = 0.05  # seconds; only matters when a grandchild keeps a pipe open


class ProcessTimeout(Exception):
    """The program did not end, or did not reply, in time."""


class ProcessStopped(Exception):
    """Somebody wanted an end before the program had come to its own."""


@dataclass(frozen=True)
class Finished:
    """How a program ended: its exit status (negative: a signal) and what it wrote."""

    status: int
    output: bytes
    errors: bytes


def environment(home: Path) -> dict[str, str]:
    """What a program may know of ours: where programs lie, and the language. No token, no
    `GITHUB_*` command file; HOME and the temporary directory are its own."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def start(
    argv: Sequence[str],
    *,
    directory: Path,
    env: Mapping[str, str],
    stdin: int,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a process group of its own, its output piped.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        argv,
        cwd=directory,
        env=dict(env),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


def descriptor(pipe: IO[bytes] | None) -> int:
    """The number of a pipe that `start` was asked for.

    Raises:
        ValueError: it was not.
    """
    if pipe is None:
        raise ValueError("the program was started without this pipe")
    return pipe.fileno()


def end(process: subprocess.Popen[bytes]) -> int:
    """Kill whatever is left of the group, then reap the leader; returns its status.

    In this order: while the leader is not reaped, its number cannot belong to another group.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:  # what macOS says of a group that has ended and is not reaped
        if not has_ended(process):
            raise
    status = process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    return status


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the leader has exited; it stays unreaped, but on macOS before Python 3.13."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run(
    argv: Sequence[str],
    *,
    directory: Path,
    env: Mapping[str, str],
    stdin: bytes,
    seconds: float,
    stop: threading.Event | None = None,
) -> Finished:
    """Run a program to its end. Of what it writes the last MiB is kept (each of stdout and
    stderr): a result comes last, whatever was logged before it.

    Args:
        stop: set from another thread, it ends the program.

    Raises:
        ProcessTimeout: still running after `seconds`; it has been killed.
        ProcessStopped: `stop` was set; likewise.
        OSError: it cannot be started.
        OurFailure: no temporary file can be written, or there is no shell.
    """
    deadline = time.monotonic() + seconds
    if not Path(_SHELL).exists():
        raise OurFailure(
            "is missing; without it, programs would go on when we are killed",
            file=_SHELL,
            fix="run on a machine, or in an image, that has a shell",
        )
    with _kept(stdin) as question:
        process = start(argv, directory=directory, env=env, stdin=question.fileno())
    try:
        with _ending_with_us(process.pid):
            output, errors = _drain(process, deadline, stop or threading.Event())
    finally:
        status = end(process)
    return Finished(status, output, errors)


def _kept(content: bytes) -> IO[bytes]:
    """A file to be read from its start. No pipe: a program that never reads cannot block us."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 the caller's to close
        file.write(content)
        file.seek(0)
    except OSError as error:
        raise scratch.not_written(error) from error
    return file


@contextmanager
def _ending_with_us(group: int) -> Iterator[None]:
    """Inside, a process group is killed as soon as we are gone, even by SIGKILL.

    A shell waits for a line of ours: that is all is well, the end of the pipe that we are gone. (A
    parent-death signal of Linux would reach the leader alone.)
    """
    script = 'read -r _ || kill -s KILL -- "-$0"'
    with subprocess.Popen(
        (_SHELL, "-c", script, str(group)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as watch:
        try:
            yield
        finally:
            watch.communicate(b"\n")


def _drain(
    process: subprocess.Popen[bytes], deadline: float, stop: threading.Event
) -> tuple[bytes, bytes]:
    """Read both pipes until the leader has exited and there is nothing more to read."""
    written = {descriptor(process.stdout): bytearray(), descriptor(process.stderr): bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in written:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        while True:
            over = has_ended(process)
            left = deadline - time.monotonic()
            if left <= 0 and not over:
                raise ProcessTimeout
            if stop.is_set():
                raise ProcessStopped
            ready = selector.select(0 if over else min(left, _POLL))
            for key, _ in ready:
                chunk = os.read(key.fd, OUTPUT_LIMIT)
                if not chunk:
                    selector.unregister(key.fd)
                written[key.fd] += chunk
                del written[key.fd][:-_LAST_BYTES]
            if over and (not ready or left <= 0):
                output, errors = written.values()
                return bytes(output), bytes(errors)
