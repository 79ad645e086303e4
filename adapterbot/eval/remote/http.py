"""JSON over HTTP, many requests at once: bounded in number, in patience and in size.

The key goes into a header and nowhere else. Redirects are not followed: they would carry the key
and the prompts to another host.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import httpx2
from pydantic import JsonValue

from adapterbot.errors import InputError, OurFailure
from adapterbot.retry_after import retry_after

_REPLY_LIMIT = 64 * 1024 * 1024
_REASON_LIMIT = 300
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABOUT_THE_KEY = frozenset({401, 403})

# How often a request is sent; to a server that was never reached, whose address may be mistyped.
_TRIES, _FIRST_TRIES = 6, 3
_LONGEST_WAIT = 30.0

NO_SUCH_THING = frozenset({404, 405, 501})
"""Statuses by which a server says that it does not have what was asked for."""


class Refused(Exception):
    """The server understood the request and will not do it: a status that no patience changes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"status {status}: {reason}" if reason else f"status {status}")
        self.status = status


class _TryAgain(Exception):
    def __init__(self, reason: str, wait: float | None = None, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        self.connected = connected


class Client:
    """One server, from one event loop.

    Args:
        url: up to and with `/v1`.
        key: the API key, None for a server that asks for none.
        concurrency: how many requests may be on their way at once.
        timeout: seconds for one try; the server writes a whole answer in it.
    """

    def __init__(self, url: str, key: str | None, *, concurrency: int, timeout: float) -> None:
        self._url = url.rstrip("/")
        # Seconds before the second try, doubled for each further one, ± half at random; what the
        # server asks for (`Retry-After`) takes its place.
        self._backoff = 0.5
        self._timeout = timeout
        self._reached = False
        self._turn = asyncio.Semaphore(concurrency)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx2.Limits(
                max_connections=concurrency, max_keepalive_connections=concurrency
            ),
            follow_redirects=False,
        )

    async def get(self, path: str) -> Any:
        """The JSON at `path`; raises as `post`."""
        return await self._patiently("GET", path, None)

    async def post(self, path: str, body: JsonValue) -> Any:
        """The JSON that the server answers; text that is no JSON as it is.

        Raises:
            Refused: a status of 4xx.
            InputError: the key is missing or not accepted.
            OurFailure: no reply in all tries.
        """
        return await self._patiently("POST", path, body)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _patiently(self, method: str, path: str, body: JsonValue) -> Any:
        wait = self._backoff
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._turn:
                    return await self._once(method, path, body)
            except _TryAgain as error:
                if not (self._reached or error.connected) and attempt >= _FIRST_TRIES:
                    raise OurFailure(
                        f"the server takes no connection: {error}",
                        file=self._url,
                        fix="start it there, or correct the address: `--server`, or `server.url` "
                        "in adapterbot.yaml",
                    ) from error
                if attempt == _TRIES:
                    raise OurFailure(
                        f"the server gave no answer at {path} in {attempt} tries: {error}",
                        file=self._url,
                        fix="see whether it is up there, and run again: what was answered is kept",
                    ) from error
                # Not all at once again: that is what the server could not bear.
                spread = wait * random.uniform(0.5, 1.5)  # noqa: S311
                asked = spread if error.wait is None else error.wait
                await asyncio.sleep(min(asked, _LONGEST_WAIT))
                wait *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _once(self, method: str, path: str, body: JsonValue) -> Any:
        try:
            # The client's own limit is one between two parts of an answer.
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(
                    method, f"{self._url}{path}", json=body if method == "POST" else None
                ) as response,
            ):
                self._reached = True
                received = bytearray()
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > _REPLY_LIMIT:
                        raise OurFailure(f"the server's answer at {path} has no end")
        except (httpx2.TransportError, TimeoutError) as error:
            # Its own text may hold more of the address than a log should.
            connected = not isinstance(error, httpx2.ConnectError)
            raise _TryAgain(_named(error), connected=connected) from error
        status, content = response.status_code, bytes(received)
        if status in _ABOUT_THE_KEY:
            raise InputError(
                f"the server refuses us with status {status}",
                field="ADAPTERBOT_SERVER_KEY",
                fix="set the API key in this environment variable",
            )
        if status in _AGAIN:
            raise _TryAgain(f"status {status}", retry_after(response.headers.get("Retry-After")))
        if status != httpx2.codes.OK:
            raise Refused(status, _reason(content))
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return content.decode(errors="replace")


def _named(error: Exception) -> str:
    """Why there was no answer, in the words of whoever has to mend it."""
    first: BaseException = error
    while cause := first.__cause__ or first.__context__:
        first = cause
    if isinstance(first, ConnectionRefusedError):
        return "connection refused"
    return "no such host" if isinstance(first, socket.gaierror) else type(error).__name__


def _reason(content: bytes) -> str:
    """What an error reply says, in one line; OpenAI's form, FastAPI's, or text."""
    text = content[: 16 * _REASON_LIMIT].decode(errors="replace")
    try:
        reply = json.loads(content)
        error = reply.get("error", reply) if isinstance(reply, dict) else reply
        if isinstance(error, dict):
            text = str(error.get("message") or error.get("detail") or text)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:_REASON_LIMIT]
