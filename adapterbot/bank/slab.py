"""Hot users' rows on the device, the least recently used making room for new ones. (torch)"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from adapterbot.bank.codec import Rows
from adapterbot.bank.source import Source
from adapterbot.errors import InputError

Expand = Callable[[Rows], Tensor]
"""Rows as the device wants them: (n, width) fp32 on the CPU."""


class Slab:
    """A table of rows on the device. Slot 0 is nobody's and holds zeros.

    Not for several threads at once, but `prefetch` may be called from any.

    Attributes:
        table: (slots + 1, width).
    """

    def __init__(
        self,
        source: Source,
        expand: Expand,
        width: int,
        slots: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.table = torch.zeros(slots + 1, width, device=device, dtype=dtype)
        self._source = source
        self._expand = expand
        self._slot: OrderedDict[str, int] = OrderedDict()
        self._digest: dict[str, bytes | None] = {}
        self._free = list(range(slots, 0, -1))
        self._version = source.version
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bank-prefetch")
        self._coming: dict[str, Future[tuple[int, bytes | None, Tensor]]] = {}
        self._expecting = threading.Lock()

    def close(self) -> None:
        """Ends the thread that prefetches."""
        self._reader.shutdown(cancel_futures=True)

    def digest(self, user: str) -> bytes | None:
        """The source's digest of a user's row that is here; None where there is none."""
        return self._digest.get(user)

    def prefetch(self, users: Sequence[str]) -> None:
        """Has rows that are not here read from the map beside whatever the device is doing.

        No more of them are kept than the table holds: what nobody came for gives way first.
        """
        with self._expecting:
            for user in users:
                if user in self._slot or user in self._coming:
                    continue
                if len(self._coming) >= len(self.table):
                    left = next((u for u, coming in self._coming.items() if coming.done()), None)
                    if left is None:
                        return
                    del self._coming[left]
                self._coming[user] = self._reader.submit(self._read, user)

    def slots(self, users: Sequence[str | None]) -> list[int]:
        """The slot of each user, filled; 0 for nobody.

        Raises:
            InputError: there is no such user, or more different ones than slots.
        """
        self._follow()
        wanted = list(dict.fromkeys(user for user in users if user is not None))
        if len(wanted) > len(self.table) - 1:
            raise InputError(
                f"{len(wanted)} different users in one batch, but {len(self.table) - 1} slots",
                field="slots",
                fix="attach the bank with more slots, or make the batch smaller",
            )
        for user in wanted:
            if user in self._slot:
                self._slot.move_to_end(user)
        missing = [user for user in wanted if user not in self._slot]
        if missing:
            self._fill(missing, keep=set(wanted))
        return [0 if user is None else self._slot[user] for user in users]

    def _fill(self, users: list[str], keep: set[str]) -> None:
        rows, digests = self._rows(users)
        while len(self._free) < len(users):
            oldest = next(user for user in self._slot if user not in keep)
            self._forget(oldest)
        places = [self._free.pop() for _ in users]
        if self.table.device.type == "cuda":
            rows = rows.pin_memory()
        index = torch.tensor(places, device=self.table.device)
        self.table[index] = rows.to(self.table.device, self.table.dtype, non_blocking=True)
        self._slot.update(zip(users, places, strict=True))
        self._digest.update(zip(users, digests, strict=True))

    def _rows(self, users: list[str]) -> tuple[Tensor, list[bytes | None]]:
        """Rows from the map, or from where `prefetch` has put them if nothing changed since."""
        with self._expecting:
            coming = [self._coming.pop(user, None) for user in users]
        ready = [future.result() for future in coming if future is not None and _good(future)]
        if len(ready) == len(users) and all(version == self._version for version, _, _ in ready):
            return torch.cat([row for _, _, row in ready]), [digest for _, digest, _ in ready]
        # The digests first: a row that changes in between is then read again, not kept.
        digests = self._source.digests(users)
        return self._expand(self._source.gather(users)), digests

    def _read(self, user: str) -> tuple[int, bytes | None, Tensor]:
        version = self._source.version
        (digest,) = self._source.digests([user])
        return version, digest, self._expand(self._source.gather([user]))

    def _follow(self) -> None:
        """Forgets users whose rows were replaced or removed since."""
        version = self._source.version
        if version == self._version:
            return
        users = list(self._slot)
        for user, digest in zip(users, self._source.digests(users), strict=True):
            if digest != self._digest[user]:
                self._forget(user)
        self._version = version

    def _forget(self, user: str) -> None:
        self._free.append(self._slot.pop(user))
        del self._digest[user]


def _good(future: Future[tuple[int, bytes | None, Tensor]]) -> bool:
    """Whether a prefetch went well; what went wrong with it shows when the row is read again."""
    return not future.cancelled() and future.exception() is None
