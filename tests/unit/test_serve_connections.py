"""Attacks on the server's connections: whoever owes a head, a body or an ear is cut off."""

from __future__ import annotations

import asyncio
import itertools
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import uvicorn

from adapterbot.bank.serve.connections import most_connections, settings

BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"
SENT = 64 * 1024 * 1024
BEGUN = threading.Event()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of a body at /body, refuses it unread at /refused, and answers with megabytes at
    /large, and late at /late."""
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    if scope["path"] == "/late":
        BEGUN.set()
        await asyncio.sleep(0.5)
    size = SENT if scope["path"] == "/large" else 2
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, size, 65536):
        part = b"x" * min(65536, size - start)
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(100, patience=1) as port:
        yield port


@contextmanager
def listening(most: int, *, patience: float) -> Iterator[int]:
    rules = settings(1, most, patience=patience)
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_level="error", lifespan="off", **rules)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
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
    config = uvicorn.Config(application, **settings(1, 100))
    config.load()
    assert "h11_impl" in config.http_protocol_class.__mro__[2].__module__
    assert config.ws_protocol_class is None


def test_attack_idle_connections_without_number_shut_nobody_out() -> None:
    """When the process could open no more files, nobody was let in, and asyncio wrote a thousand
    tracebacks a second."""
    with listening(8, patience=60) as port, ExitStack() as opened:
        late = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        late.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        assert BEGUN.wait(60)
        idle = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(40)
        ]
        new = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        new.settimeout(60)
        new.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert new.recv(4096).startswith(b"HTTP/1.1 200")
        late.settimeout(60)
        assert late.recv(4096).startswith(b"HTTP/1.1 200"), "whose turn it is, is not cut"
        idle[0].settimeout(60)
        with suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""


def test_there_are_no_more_connections_than_files() -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_connections(10) <= 220
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
        assert most_connections(10_000) < 1024 - 256
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
        assert most_connections(10_000) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
