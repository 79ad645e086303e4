"""How the server ends: in order, also at a second Ctrl-C, which tells it not to wait for answers.

uvicorn alone would then leave the answers under way to asyncio, which breaks them off with a
traceback of each in the log, from Python 3.12 on after waiting for every connection.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

_LOOK = 0.1  # seconds between two looks at whether there was a second Ctrl-C
_MOMENT = 1.0  # seconds in which an answer that was ended is told so


class Server(uvicorn.Server):
    """Waits for the answers under way before it ends; at a second Ctrl-C it ends them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM for good: one that comes after the server has ended, while the
        process is ending, is no interruption."""
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self.handle_exit)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends it."""
        orderly = asyncio.ensure_future(super().shutdown(sockets))
        while not (orderly.done() or self.force_exit):
            await asyncio.wait([orderly], timeout=_LOOK)
        if self.force_exit:
            await self._end_answers()
        await orderly

    async def _end_answers(self) -> None:
        await self.lifespan.shutdown()  # which ends what the model answers
        await self._settled()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._settled()

    async def _settled(self) -> None:
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_MOMENT)
