"""Git as a program, one command at a time.

Nothing here knows of paths in a tree. Nothing of the repository (hooks, filters, fsmonitor) is
executed; only `git_as` runs commands that write.
"""

from __future__ import annotations

import base64
import functools
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from adapterbot import beside
from adapterbot.errors import InputError, OurFailure

_NETWORK_SECONDS = 600.0
_REACHED = re.compile(
    r"GIT_(ASKPASS$|SSL_|SSH|PROXY_|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)$)"
)
_VERDICT = ("fatal: ", "error: ", "Error ", "git: ")


def git(repository: Path, *arguments: str) -> bytes:
    """Standard output of a Git command that reads.

    Raises:
        OurFailure: Git is not installed, or the command failed.
    """
    return _run(repository, arguments, environment_for(repository), stdout=subprocess.PIPE)


def git_at_most(repository: Path, most: int, *arguments: str) -> bytes | None:
    """As `git`; None, and not waited for any longer, where it says more than `most` bytes.

    Raises:
        OurFailure: as `git`.
    """
    try:
        with subprocess.Popen(
            command(repository, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment_for(repository),
        ) as process:
            said = cast("BinaryIO", process.stdout).read(most + 1)
            if len(said) > most:
                process.kill()
                return None
            told = cast("BinaryIO", process.stderr).read()
    except FileNotFoundError as error:
        raise no_git() from error
    if process.returncode != 0:
        raise OurFailure(f"git {arguments[0]} failed: {_reason(told)}")
    return said


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
    env = environment_for(repository, settings)
    _run(repository, arguments, env, subprocess.DEVNULL, given, _NETWORK_SECONDS)


def authorization(url: str, token: str) -> list[tuple[str, str]]:
    """Git's settings that show a token to what begins with `url`, and to nobody else.

    Emptied first: GitHub refuses a request that also bears what actions/checkout left in the
    machine's or the repository's configuration.
    """
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    header = f"http.{url}.extraheader"
    return [(header, ""), (header, f"Authorization: Basic {basic}")]


def _numbered(settings: Sequence[tuple[str, str]], first: int = 0) -> dict[str, str]:
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
            command(repository, arguments),
            environment,
            given=given,
            seconds=seconds,
            stdout=stdout,
        )
    except FileNotFoundError as error:
        raise no_git() from error
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
                # It may have ended; macOS calls that a lack of permission until it is reaped.
                with suppress(ProcessLookupError, PermissionError):
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


def command(repository: Path, arguments: Sequence[str]) -> list[str]:
    """The command line; repository-local configuration that could run a program is off."""
    off = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    return ["git", *off, "-C", str(repository), *arguments]


def environment_for(repository: Path, settings: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Ours, and what Git needs to fetch what this clone lacks (a partial one does it by itself)."""
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


def environment_apart(settings: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Ours, for a repository of our own, with settings over those that it finds.

    Raises:
        InputError: there is a GIT_CONFIG_COUNT, and it is no number.
    """
    ours = beside.programs_environment()
    return _configured({n: v for n, v in ours.items() if not of_a_repository(n)}, settings)


def of_a_repository(variable: str) -> bool:
    """Whether Git is told by it of one repository, as the hook is that may have started us, or who
    commits. How servers are reached and trusted is none of that: a company's may have an authority
    of its own, and by hand git asks its user."""
    return variable.startswith("GIT_") and not _REACHED.match(variable)


def _configured(
    environment: Mapping[str, str], settings: Sequence[tuple[str, str]]
) -> dict[str, str]:
    count = environment.get("GIT_CONFIG_COUNT", "")
    if not re.fullmatch("[0-9]{0,9}", count):
        raise InputError(
            f"{count[:40]!r} is no number of settings",
            file="GIT_CONFIG_COUNT",
            fix="correct it, or unset it",
        )
    return {**environment, **_numbered(settings, int(count or 0))}


@functools.lru_cache(maxsize=32)
def _knows_credentials(repository: Path, url: str) -> bool:
    """Whether actions/checkout left the clone a token of its own."""
    asked = ["config", "--get-urlmatch", "http.extraheader", url]
    ours = beside.programs_environment()
    done = subprocess.run(command(repository, asked), capture_output=True, check=False, env=ours)
    return done.returncode == 0


def no_git() -> OurFailure:
    """The error where there is no such program."""
    return OurFailure("git was not found", fix="install git on this machine")
