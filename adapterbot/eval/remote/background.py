"""An event loop in a thread of its own: requests go on while a scorer thinks."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Background:
    """Runs coroutines for a caller that is not asynchronous."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that is ended must not wait for a server.
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """The result of one coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def as_completed(
        self, works: Sequence[Coroutine[Any, Any, _Result]]
    ) -> Iterator[tuple[int, _Result]]:
        """Yields (index, result) as they come; the first failure ends the others and is raised."""
        done: queue.SimpleQueue[tuple[int, asyncio.Task[_Result]]] = queue.SimpleQueue()

        async def start() -> list[asyncio.Task[_Result]]:
            tasks = [self._loop.create_task(work) for work in works]
            place = {task: index for index, task in enumerate(tasks)}
            for task in tasks:
                task.add_done_callback(lambda ended: done.put((place[ended], ended)))
            return tasks

        tasks = self.run(start())
        try:
            for _ in tasks:
                index, task = done.get()
                yield index, task.result()
        finally:
            self.run(_cancelled(tasks))

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        # A failure that nobody will ask about any more: the first one was raised.
        with suppress(asyncio.CancelledError, Exception):
            await task
