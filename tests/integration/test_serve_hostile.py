"""Attacks on `adapterbot serve` by its own users, and by what happens to its bank meanwhile."""

from __future__ import annotations

import http.client
import json
import logging
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from adapterbot.bank.writer import BankWriter
from tests.bank_server import (
    base_of_characters,
    key,
    key_hash,
    killed_afterwards,
    serving,
    users_with_keys,
)

LONG = 3000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "tiny"
    return base_of_characters(folder, max_position_embeddings=2 * LONG)


@pytest.fixture
def bank(base: Path, tmp_path: Path) -> Path:
    return users_with_keys(base, tmp_path / "users", 4)


@pytest.fixture
def server(base: Path, bank: Path) -> Iterator[str]:
    with serving(base, bank=bank, per_tenant=2, max_tokens=LONG) as url:
        yield url


def client(url: str, user: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key(user), max_retries=0, timeout=60)


def ask(url: str, user: str, model: str, **options: Any) -> Any:
    given: dict[str, Any] = {"prompt": "the thing", "temperature": 0, "max_tokens": 2, **options}
    return client(url, user).completions.create(model=model, **given)


def test_attack_one_user_takes_no_model_away_from_the_others(server: str) -> None:
    """Requests were counted by model: whoever had as many as one may of the base had them all."""
    with ExitStack() as streams:
        for _ in range(2):
            stream = ask(server, "u1", "tiny", max_tokens=LONG, stream=True)
            next(iter(stream))
            streams.callback(stream.close)
        assert ask(server, "u2", "tiny").usage.completion_tokens
        # They are u1's own, whichever model they are of.
        with pytest.raises(openai.RateLimitError):
            ask(server, "u1", "tiny:u1")


@pytest.mark.parametrize("given_away", [True, False])
def test_attack_an_answer_does_not_go_on_with_another_row(
    server: str, bank: Path, given_away: bool
) -> None:
    """The name is given to somebody else while its last owner is being answered, who went on to be
    answered by the new one's row; or it has a new row, and the old one's keys were read with it."""
    stream = iter(ask(server, "u1", "tiny:u1", max_tokens=LONG, stream=True))
    next(stream)
    with BankWriter(bank) as writer:
        rows = writer.gather(["u2"])
        if given_away:
            writer.remove(["u1"])
        writer.add(["u1"], rows, replace=not given_away)
    with pytest.raises(openai.APIError, match=r"changed meanwhile|no such model any more"):
        list(stream)


def test_attack_who_waits_is_not_answered_by_the_next_owner_of_the_name(
    base: Path, bank: Path
) -> None:
    with serving(base, bank=bank, rows=1, max_tokens=LONG) as url:
        stream = iter(ask(url, "u0", "tiny:u0", max_tokens=LONG, stream=True))
        next(stream)
        body = json.dumps({"model": "tiny:u1", "prompt": "the thing", "max_tokens": 2})
        waiting = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        waiting.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {key('u1')}"})
        while "adapterbot_tokens_total" not in figures(url):
            time.sleep(0.05)
        time.sleep(0.5)
        with BankWriter(bank) as writer:
            rows = writer.gather(["u2"])
            writer.remove(["u1"])
            writer.add(["u1"], rows)
        list(stream)
        answer = waiting.getresponse()
        assert answer.status == 409, answer.read()


def test_attack_a_key_that_is_revoked_while_the_body_comes_is_no_key(
    server: str, bank: Path
) -> None:
    body = json.dumps({"model": "tiny:u1", "prompt": "x", "max_tokens": 1}).encode()
    with begun_upload(server, "u1", len(body)) as connection:
        connection.sendall(body[:5])
        time.sleep(0.3)
        with BankWriter(bank) as writer:
            writer.drop_keys("u1")
        connection.sendall(body[5:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def begun_upload(url: str, user: str, length: int) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Authorization: Bearer %s\r\n\r\n" % (length, key(user).encode())
    )
    return connection


def figures(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics") as response:
        return str(response.read().decode())


def test_attack_bodies_that_never_come_take_their_owners_places_only(server: str) -> None:
    """Four megabytes of each were kept, of as many as one user cared to begin."""
    with ExitStack() as uploads:
        for _ in range(2):
            uploads.enter_context(begun_upload(server, "u1", 1000)).sendall(b"{")
        time.sleep(0.5)
        with pytest.raises(openai.RateLimitError):
            ask(server, "u1", "tiny:u1")
        assert ask(server, "u2", "tiny:u2").usage.completion_tokens
    while True:  # they are given back when the client has gone
        try:
            assert ask(server, "u1", "tiny:u1").usage.completion_tokens
            break
        except openai.RateLimitError:
            time.sleep(0.1)


def test_attack_uploads_that_are_broken_off_do_not_fill_the_log(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each was a hundred lines."""
    log = logging.getLogger("uvicorn.error")
    log.addHandler(caplog.handler)
    try:
        with begun_upload(server, "u1", 1000) as connection:
            connection.sendall(b"{")
            time.sleep(0.3)
        while 'status="499"' not in figures(server):
            time.sleep(0.05)
    finally:
        log.removeHandler(caplog.handler)
    assert caplog.messages == []


def test_attack_no_redirect_sends_a_key_to_a_host_that_a_client_named(server: str) -> None:
    """`/v1/models/` behind TLS was answered with plain HTTP's address, to which clients go."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions/", "{}", {"Host": "evil.example"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (404, None)
    assert json.loads(answer.read())["error"]["code"] == "not_supported"


def test_a_bank_that_cannot_be_read_is_an_error_that_clients_can_read(
    server: str, bank: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was `Internal Server Error` in plain text, and two tracebacks for each request."""
    manifest = bank / "manifest.json"
    whole = manifest.read_bytes()
    with BankWriter(bank) as writer:
        writer.add_key("u1", key_hash("another"))
    manifest.write_text("{")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(server, "u1", "tiny:u1")
    assert caught.value.code == "bank_damaged"
    assert str(bank) not in caught.value.message
    assert str(bank) in caplog.text
    assert "Traceback" not in caplog.text
    manifest.write_bytes(whole)
    assert ask(server, "u1", "tiny:u1").usage.completion_tokens


def test_attack_a_body_that_never_comes_does_not_keep_a_server_from_stopping(
    base: Path, bank: Path
) -> None:
    """SIGTERM waited for it, for ever."""
    with (
        killed_afterwards(base, bank) as (port, process),
        begun_upload(f"http://127.0.0.1:{port}", "u1", 1000) as connection,
    ):
        connection.sendall(b"{")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.written(1)


def test_a_second_ctrl_c_waits_for_nobody_and_ends_in_order(base: Path, bank: Path) -> None:
    """It left what was going on to asyncio, which wrote a traceback of each to the log."""
    with (
        killed_afterwards(base, bank) as (port, process),
        begun_upload(f"http://127.0.0.1:{port}", "u1", 1000) as connection,
    ):
        connection.sendall(b"{")
        time.sleep(0.3)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert process.wait(60) == 0, process.written(1)
    assert "Application shutdown complete" in process.written(1)
    assert "Traceback" not in process.written(1)


def test_signals_that_come_while_the_process_ends_are_no_interruption(
    base: Path, bank: Path
) -> None:
    """Once uvicorn had given them back, the second ended the process with 1, or in the middle of
    what torch does at its end, with a traceback."""
    with killed_afterwards(base, bank) as (_, process):
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert process.wait(60) == 0, process.written(1)
    assert "Traceback" not in process.written(1)
