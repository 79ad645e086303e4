"""Connections that nobody can hold: whatever a client owes, a head, a body, its ear, is due.

uvicorn itself waits for ever for a head or a body, and for an answer to be taken; behind a refusal
it reads on as long as somebody sends; it does not stop while anybody is connected; and where the
process may open no more files, asyncio writes megabytes a second of that to the log.
"""

from __future__ import annotations

import asyncio
import math
import resource
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_PATIENCE = 30.0
_LINGER = 5.0
_AT_ONCE = 128  # accepted before any of them is looked at; some turns pass until one is closed
_OTHER_FILES = 64


def most_connections(jobs: int) -> int:
    """How many there may be: each job's, as many that are idle, and some that are refused; but no
    more than the process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * jobs + 200
    if files == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, files - 4 * _AT_ONCE - _OTHER_FILES))


def settings(seconds: float, most: int, *, patience: float = _PATIENCE) -> dict[str, Any]:
    """The settings of uvicorn.

    Args:
        seconds: the most that an answer may take.
        most: connections at a time; for one more, that which has owed something longest is cut.
        patience: the most seconds that a client may take for its own part: to send a head, to send
            a body, and to read what is left of an answer.
    """

    class Connection(_Connection):
        own = patience
        whole = seconds + patience
        room = most
        owing: ClassVar[dict[_Connection, None]] = {}

    return {
        # One parser, whatever is installed beside it: its limits are known. And no web sockets.
        "http": Connection,
        "ws": "none",
        "backlog": _AT_ONCE,
        "access_log": False,
        # By then every answer that was under way has ended, and had its time to be read.
        "timeout_graceful_shutdown": math.ceil(seconds + _LINGER),
    }


class _Connection(H11Protocol):
    """A connection that is cut when what is due has not come.

    Attributes:
        own: seconds for what is the client's part alone.
        whole: seconds from a request's last byte to its answer's last.
        room: how many there may be.
        owing: those whose client is to do something, whoever has been longest first.
    """

    own: float
    whole: float
    room: int
    owing: ClassVar[dict[_Connection, None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._due: asyncio.TimerHandle | None = None
        self._stage: object = None
        super().connection_made(transport)
        self._owes(self.own)
        if len(self.connections) > self.room:
            next(iter(self.owing)).cut()  # it may be this one

    def connection_lost(self, exc: Exception | None) -> None:
        self.owing.pop(self, None)
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
        if stage == self._stage:
            return
        self._stage = stage
        if cycle.more_body:
            self._expect(self.own)
        else:
            self.owing.pop(self, None)
            self._expect(self.whole)

    def on_response_complete(self) -> None:
        # A body that nobody reads is thrown away for a moment, in which the answer is read.
        unread = self.conn.their_state is h11.SEND_BODY
        self._owes(min(_LINGER, self.own) if unread else self.own)
        super().on_response_complete()

    def shutdown(self) -> None:
        super().shutdown()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            self._expect(min(_LINGER, self.own))

    def _owes(self, seconds: float) -> None:
        self.owing.pop(self, None)
        self.owing[self] = None
        self._expect(seconds)

    def _expect(self, seconds: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self.loop.call_later(seconds, self.cut)

    def cut(self) -> None:
        """Ends it, whatever is still to be sent."""
        self.owing.pop(self, None)
        # Not closed: that would wait for the client to take what is still to be sent.
        self.transport.abort()
