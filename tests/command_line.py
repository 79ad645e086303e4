"""`adapterbot …` as a process of its own, without its start: a fork of one that has started.

A command spends 0.6 s of CPU on imports, 4 s with torch and transformers, and hundreds of tests
run one. Here one process imports what commands import for all of pytest's, and a command is a fork
of it: with its own process id, working directory, environment, standard streams and exit
code, and nothing of what the command before it left in memory. What it is not is a start: tests
of what is imported when, of the interpreter's flags and of variables that libraries read while
they are imported start a whole one, and `start` refuses such variables.

    done = command_line.run("gate", "--base", "main", cwd=repository, env={**os.environ, …})
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from adapterbot.importing import for_good

ROOT = Path(__file__).resolve().parents[1]
# What commands import when they run; whatever is missing here is imported by the fork.
PRELOADED = (
    "adapterbot.cli",
    "adapterbot.commands.bisect",
    "adapterbot.commands.gate",
    "adapterbot.eval.engine",
    "adapterbot.render",
    "github",
    "jsonschema",
    "transformers.models.llama.modeling_llama",
)
# Read by libraries while they are imported, or by the interpreter itself.
AT_START = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_", "TRANSFORMERS_", "PYTHONPATH", "PYTHONUTF8", "LD_")
STARTED_WITH = dict(os.environ)


class Process:
    """A command that runs, or has ended.

    Attributes:
        pid: of the command itself, for signals.
        returncode: None while it runs; the negative signal that ended it, as in `subprocess`.
    """

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.returncode: int | None = None
        self._written = (bytearray(), bytearray())
        pipes = [os.pipe() for _ in self._written]
        self._wire = _ask(address(), arguments, cwd, env, [end for _, end in pipes])
        self.pid = _number(self._wire)
        self._readers = []
        for (ours, theirs), into in zip(pipes, self._written, strict=True):
            os.close(theirs)
            self._readers.append(threading.Thread(target=_read, args=(ours, into), daemon=True))
            self._readers[-1].start()

    def wait(self, timeout: float = 280) -> int:
        """Its exit code.

        Raises:
            TimeoutError: it still runs after `timeout` seconds, and was killed.
        """
        if self.returncode is None:
            self._wire.settimeout(timeout)
            try:
                status = _number(self._wire)
            except TimeoutError:
                self.send_signal(signal.SIGKILL)
                raise
            self._wire.close()
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def poll(self) -> int | None:
        """As of `subprocess.Popen`."""
        if self.returncode is None and select.select([self._wire], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As of `subprocess.Popen`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 280) -> tuple[str, str]:
        """What it wrote, once it has ended."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join()
        return self.written(0), self.written(1)

    def written(self, stream: int) -> str:
        """What it wrote so far to its standard output (0) or standard error (1)."""
        return self._written[stream].decode(errors="replace")


def _read(stream: int, into: bytearray) -> None:
    while found := os.read(stream, 65536):
        into += found
    os.close(stream)


def start(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """Start `adapterbot` with `arguments`; nothing is on its standard input.

    Raises:
        ValueError: `env` differs from this process's in what only a start reads.
    """
    environment = os.environ if env is None else env
    for name in environment.keys() | STARTED_WITH.keys():
        if name.startswith(AT_START) and environment.get(name) != STARTED_WITH.get(name):
            raise ValueError(f"{name} is read at the start of a process: start one")
    return Process(tuple(map(str, arguments)), cwd or Path.cwd(), environment)


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:
    """Run `adapterbot` to its end, as `subprocess.run` would; see `start` and `Process.wait`."""
    process = start(*arguments, cwd=cwd, env=env)
    output, error = process.communicate(timeout)
    return subprocess.CompletedProcess(process.arguments, process.wait(), output, error)


@functools.cache
def address() -> Path:
    """The address of the process that forks, which ends with the last of pytest's that asked."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    # An address has 103 bytes on macOS, of which the temporary folder takes 48 and `run` 32.
    place = Path(tempfile.gettempdir(), f"adapterbot-{run}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place / "socket"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            held = _connected(place / "held")
        except OSError:
            _begin(found)
            held = _connected(place / "held")
    atexit.register(held.close)
    return found


def _begin(at: Path) -> None:
    for old in (at, at.with_name("held")):
        old.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from tests.command_line import serve; serve({str(at)!r})"],
        cwd=ROOT,
        env=STARTED_WITH,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"


def _connected(to: Path) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.connect(str(to))
    return wire


def hand_over(to: str) -> NoReturn:
    """What this process was given, to a fork of the process at an address; end as the fork ends."""
    with _ask(Path(to), sys.argv[1:], Path.cwd(), os.environ, [1, 2]) as wire:
        _number(wire)
        sys.exit(os.waitstatus_to_exitcode(_number(wire)))


def _ask(
    to: Path, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], streams: list[int]
) -> socket.socket:
    wire = _connected(to)
    request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
    socket.send_fds(wire, [struct.pack("!I", len(request))], streams)
    wire.sendall(request)
    return wire


def _number(wire: socket.socket) -> int:
    return int(struct.unpack("!i", wire.recv(4, socket.MSG_WAITALL))[0])


def serve(at: str) -> NoReturn:
    """Fork a command for each connection, as long as somebody is connected to `held` beside it."""
    # What is imported already is no fork's garbage, and no page of it is copied to look for some.
    with for_good():
        for name in PRELOADED:
            importlib.import_module(name)
    with _listening(Path(at)) as asking, _listening(Path(at).with_name("held")) as holding:
        print("ready", flush=True)
        holders = [holding.accept()[0]]
        while holders:
            for ready in select.select([asking, holding, *holders], [], [])[0]:
                if ready is holding:
                    holders.append(holding.accept()[0])
                elif ready is asking:
                    _fork(asking)
                else:
                    holders.remove(ready)
    shutil.rmtree(Path(at).parent)
    sys.exit()


def _listening(at: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(at))
    listening.listen()
    return listening


def _fork(asking: socket.socket) -> None:
    wire, _ = asking.accept()
    if os.fork() == 0:
        asking.close()
        _wait(wire)
    wire.close()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _wait(wire: socket.socket) -> NoReturn:
    """Starts the command, and tells who asked its process id and how it ended."""
    length, streams, _, _ = socket.recv_fds(wire, 4, 2)
    (size,) = struct.unpack("!I", length)
    data = wire.recv(size, socket.MSG_WAITALL)
    process = os.fork()
    if process == 0:
        wire.close()
        _become(json.loads(data), streams)
    wire.sendall(struct.pack("!i", process))
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):
        wire.sendall(struct.pack("!i", status))
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> NoReturn:
    from adapterbot.cli import program

    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((nothing, *streams)):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[1:] = request["arguments"]
    code = 1
    try:
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 as the interpreter does at the end of a process
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
