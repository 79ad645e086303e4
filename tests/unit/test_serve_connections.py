"""Attacks on the server's connections: whoever owes a head, a body or an ear is cut off."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from adapterbot.bank.serve.connections import settings

BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"
SENT = 64 * 1024 * 1024


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of a body at /body, refuses it unread at /refused, and answers with megabytes."""
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    size = SENT if scope["path"] == "/large" else 2
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, size, 65536):
        part = b"x" * min(65536, size - start)
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    rules = settings(1, patience=1)
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_level="error", lifespan="off", **rules)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def trickle(connection: socket.socket, part: bytes) -> None:
    """Sends a byte now and then, as long as anybody takes one."""
    for byte in itertools.cycle(part):
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def flood(connection: socket.socket, part: bytes) -> None:
    """Sends as fast as anybody reads."""
    while True:
        connection.sendall(part * 4096)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", None),
        (b"GET /healthz HT", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", lambda c: trickle(c, b"a")),
        (BODY, None),
        (BODY, lambda c: trickle(c, b"{")),
        (BODY.replace(b"/body", b"/refused"), lambda c: trickle(c, b"{")),
        (BODY.replace(b"/body", b"/refused"), lambda c: flood(c, b"{")),
    ],
    ids=["idle", "head", "slow head", "body", "slow body", "behind a refusal", "flood behind one"],
)
def test_attack_nobody_holds_a_connection_by_what_he_never_sends(
    port: int, first: bytes, then: Callable[[socket.socket], None] | None
) -> None:
    """Slow-loris: a thousand such connections were all that the process could open, for ever."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(60)
        connection.sendall(first)
        try:
            if then is not None:
                then(connection)
            while connection.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass  # cut, not left open until the time limit of this test


def test_attack_nobody_holds_a_connection_by_what_he_never_reads(port: int) -> None:
    """An answer lay in the server for as long as its client said nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(60)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(4)  # twice as long as it is waited for
        taken = 0
        try:
            while part := connection.recv(1 << 20):
                taken += len(part)
        except ConnectionResetError:
            pass
    assert taken < SENT


def test_who_reads_and_sends_in_time_keeps_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(60)
        for _ in range(5):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"xx"):
                answer += connection.recv(4096)
            time.sleep(0.4)  # together longer than any single one may take


def test_attack_the_parser_does_not_depend_on_what_is_installed_beside_it() -> None:
    """One that is found by itself, httptools, takes a head of any length; a found library for web
    sockets opens a way in that nothing here looks after."""
    config = uvicorn.Config(application, **settings(1))
    config.load()
    assert "h11_impl" in config.http_protocol_class.__mro__[2].__module__
    assert config.ws_protocol_class is None
