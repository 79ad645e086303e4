"""Connections that nobody can hold: whatever a client owes, a head, a body, its ear, is due.

uvicorn itself waits for ever for a head or a body, and for an answer to be taken; behind a refusal
it reads on as long as somebody sends; and it does not stop while anybody is connected.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_PATIENCE = 30.0
_LINGER = 5.0


def settings(seconds: float, *, patience: float = _PATIENCE) -> dict[str, Any]:
    """The settings of uvicorn.

    Args:
        seconds: the most that an answer may take.
        patience: the most seconds that a client may take for its own part: to send a head, to send
            a body, and to read what is left of an answer.
    """

    class Connection(_Connection):
        own = patience
        whole = seconds + patience

    return {
        # One parser, whatever is installed beside it: its limits are known. And no web sockets.
        "http": Connection,
        "ws": "none",
        "access_log": False,
        # By then every answer that was under way has ended, and had its time to be read.
        "timeout_graceful_shutdown": math.ceil(seconds + _LINGER),
    }


class _Connection(H11Protocol):
    """A connection that is cut when what is due has not come.

    Attributes:
        own: seconds for what is the client's part alone.
        whole: seconds from a request's last byte to its answer's last.
    """

    own: float
    whole: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._due: asyncio.TimerHandle | None = None
        self._stage: object = None
        super().connection_made(transport)
        self._expect(self.own)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return
        # Not with every byte: whoever sends one now and then would never be late.
        stage = (cycle, cycle.more_body)
        if stage != self._stage:
            self._stage = stage
            self._expect(self.own if cycle.more_body else self.whole)

    def on_response_complete(self) -> None:
        # A body that nobody reads is thrown away for a moment, in which the answer is read.
        unread = self.conn.their_state is h11.SEND_BODY
        self._expect(min(_LINGER, self.own) if unread else self.own)
        super().on_response_complete()

    def shutdown(self) -> None:
        super().shutdown()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            self._expect(min(_LINGER, self.own))

    def _expect(self, seconds: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self.loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        # Not closed: that would wait for the client to take what is still to be sent.
        self.transport.abort()
