"""Git as a program: one command at a time, and a process that hands out blobs.

Nothing here knows of paths in a tree. Nothing of the repository (hooks, filters, fsmonitor) is
executed; only `git_as` runs commands that write.
"""

from __future__ import annotations

import atexit
import base64
import functools
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from adapterbot import beside
from adapterbot.errors import OurFailure

_OBJECT_ID = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NETWORK_SECONDS = 600.0
_VERDICT = ("fatal: ", "error: ", "Error ", "git: ")


def git(repository: Path, *arguments: str) -> bytes:
    """Standard output of a Git command that reads.

    Raises:
        OurFailure: Git is not installed, or the command failed.
    """
    return _run(repository, arguments, _environment(repository), stdout=subprocess.PIPE)


def git_as(
    repository: Path,
    environment: Mapping[str, str],
    *arguments: str,
    settings: Sequence[tuple[str, str]] = (),
    given: bytes = b"",
    seconds: float | None = None,
) -> bytes:
    """Standard output of a Git command that may write.

    Args:
        environment: of its process: who commits, and how to push.
        settings: of Git, over those that it finds.
        given: its standard input.
        seconds: how long it may take.

    Raises:
        OurFailure: as `git`, or it took too long.
    """
    env = _configured(environment, settings)
    return _run(repository, arguments, env, subprocess.PIPE, given, seconds)


def git_directory(repository: Path) -> Path:
    """Where Git keeps what all worktrees of a clone share.

    Raises:
        OurFailure: as `git`.
    """
    asked = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    return Path(git(repository, *asked).decode().rstrip("\n"))


def ask_remote(
    repository: Path,
    *arguments: str,
    given: bytes = b"",
    settings: Sequence[tuple[str, str]] = (),
) -> None:
    """A Git command that gets objects from the clone's remote. Standard output is left aside: it
    may be gigabytes.

    Args:
        given: its standard input.
        settings: of Git, over those that it finds.

    Raises:
        OurFailure: as `git`, or it took too long.
    """
    env = _environment(repository, settings)
    _run(repository, arguments, env, subprocess.DEVNULL, given, _NETWORK_SECONDS)


def authorization(url: str, token: str) -> list[tuple[str, str]]:
    """Git's settings that show a token to what begins with `url`, and to nobody else.

    Emptied first: GitHub refuses a request that also bears what actions/checkout left in the
    machine's or the repository's configuration.
    """
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    header = f"http.{url}.extraheader"
    return [(header, ""), (header, f"Authorization: Basic {basic}")]


def numbered(settings: Sequence[tuple[str, str]], first: int = 0) -> dict[str, str]:
    """Settings as the environment variables that Git reads them from: the arguments of a process
    are everybody's to see."""
    entries = list(enumerate(settings, start=first))
    return {
        "GIT_CONFIG_COUNT": str(first + len(entries)),
        **{f"GIT_CONFIG_KEY_{i}": name for i, (name, _) in entries},
        **{f"GIT_CONFIG_VALUE_{i}": value for i, (_, value) in entries},
    }


def _run(
    repository: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdout: int,
    given: bytes = b"",
    seconds: float | None = None,
) -> bytes:
    try:
        done = finished(
            _command(repository, arguments),
            environment,
            given=given,
            seconds=seconds,
            stdout=stdout,
        )
    except FileNotFoundError as error:
        raise _no_git() from error
    except subprocess.TimeoutExpired as error:
        raise OurFailure(f"git {arguments[0]} did not end within {error.timeout:g} s") from error
    if done.returncode != 0:
        raise OurFailure(f"git {arguments[0]} failed: {_reason(done.stderr)}")
    return done.stdout or b""


def finished(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    given: bytes = b"",
    seconds: float | None = None,
    stdout: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run`; but a command that has a time limit is ended with all that it started:
    Git leaves the helper that talks to a server, and git-lfs, behind.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutExpired: it took too long, and is ended.
    """
    # A person's ssh asks for a passphrase at the terminal, which only its own session may.
    apart = seconds is not None and not _at_a_terminal()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=apart,
    ) as process:
        try:
            out, told = process.communicate(given, timeout=seconds)
        except BaseException:
            if apart:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, told)


def _at_a_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _reason(told: bytes) -> str:
    """The line that says why, among those that say what to do about it."""
    lines = told.decode(errors="replace").strip().splitlines()
    why = [line for line in lines if line.startswith(_VERDICT)] or lines[-1:]
    return why[0] if why else "no reason given"


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
            _command(repository, ["cat-file", "blob", object_id]),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=_environment(repository),
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


def _environment(repository: Path, settings: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Ours, and what lets Git get what this clone lacks (a partial clone asks for it by itself)."""
    quiet = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "0",  # may be set for checkouts, and would have us fetch nothing
        "LC_ALL": "C",  # the language in which we read what Git says
    }
    ours = [*settings]
    server = os.environ.get("GITHUB_SERVER_URL", "").rstrip("/") + "/"
    token = os.environ.get("GITHUB_TOKEN", "").strip()
    on_runner = os.environ.get("GITHUB_ACTIONS") == "true" and server != "/"
    if on_runner and token and not _knows_credentials(repository, server):
        ours += authorization(server, token)
    return _configured({**beside.programs_environment(), **quiet}, ours)


def _configured(
    environment: Mapping[str, str], settings: Sequence[tuple[str, str]]
) -> dict[str, str]:
    first = int(environment.get("GIT_CONFIG_COUNT") or 0)
    return {**environment, **numbered(settings, first)}


@functools.lru_cache(maxsize=32)
def _knows_credentials(repository: Path, url: str) -> bool:
    """Whether actions/checkout left the clone a token of its own."""
    asked = ["config", "--get-urlmatch", "http.extraheader", url]
    ours = beside.programs_environment()
    done = subprocess.run(_command(repository, asked), capture_output=True, check=False, env=ours)
    return done.returncode == 0


def _no_git() -> OurFailure:
    return OurFailure("git was not found", fix="install git on this machine")


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
                    _command(self._repository, ["cat-file", self._what]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=_environment(self._repository),
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
