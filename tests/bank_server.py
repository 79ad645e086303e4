"""`adapterbot serve`: as a process of its own, or in a thread of this one."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from adapterbot.commands.serve import ServeOptions, build
from tests import command_line
from tests.ports import free_port

SECONDS_TO_START = 120


@contextmanager
def killed_afterwards(base: Path, bank: Path) -> Iterator[tuple[int, command_line.Process]]:
    """The port of a server that answers, and its process; what still runs in the end is killed
    (SIGKILL), not stopped."""
    port = free_port()
    process = command_line.start(
        *("serve", "--base", base, "--bank", bank, "--port", str(port), "--device", "cpu")
    )
    try:
        for _ in range(10 * SECONDS_TO_START):
            try:
                http.client.HTTPConnection("127.0.0.1", port).request("GET", "/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield port, process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def serving(base: Path, **options: Any) -> Iterator[str]:
    """The server in a thread of this process; its address."""
    given = {"slots": 64, **options}
    app = build(ServeOptions(base=str(base), device="cpu", **given))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=3)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
