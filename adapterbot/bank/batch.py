"""Users to add, and what is made of them before the writer needs it. (numpy)

Narrowing, hashing and writing let other threads run: the parts of a batch are made on every core,
the first are written while the last are made, and the next batch is made while this one is on its
way to the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import lt
from typing import Self

import numpy as np

from adapterbot.bank.codec import Bytes, Codec, Rows
from adapterbot.bank.manifest import user_keys
from adapterbot.bank.records import row_seals
from adapterbot.errors import InputError

BATCH_BYTES = 32 << 20
"""Rows of a good transaction: so large that the disk is what one waits for."""

_SOURCE_BYTES = 400
# From here on hashlib lets other threads run.
_LARGE = 2048
_PART = 2 << 20
_KEPT = 31 << 20  # below the most that glibc adapts itself to
_THREADS = 8  # more than any disk takes


@dataclass(frozen=True)
class Batch:
    """Users to add together.

    Attributes:
        users: their names.
        rows: one for each.
        source: where they come from, or where each of them does; at most 400 bytes.
    """

    users: Sequence[str]
    rows: Rows
    source: str | Sequence[str] = ""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.users):
            raise ValueError("one row for each user")
        if not isinstance(self.source, str) and len(self.source) != len(self.users):
            raise ValueError("one source for each user")


@dataclass(frozen=True)
class Made:
    """A batch as the writer takes it.

    Attributes:
        keys: of the users.
        rising: whether each key is greater than the one before.
        created: in ms since 1970.
        sources: of each user, or of all.
        raw: the rows as they are kept, (n, row_bytes): each part of them when its seals are there.
        parts: the seals of one part of the rows after another, (m, SEAL).
    """

    keys: list[bytes]
    rising: bool
    created: int
    sources: bytes | list[bytes]
    raw: Bytes
    parts: Sequence[Future[Bytes]]


class Maker:
    """Makes batches on every core. A context manager, which ends its threads."""

    def __init__(self, codec: Codec) -> None:
        """
        Args:
            codec: how rows are written.
        """
        self._codec = codec
        size = codec.row_bytes
        self._step = max(1, _PART // size) if size >= _LARGE else None
        # Memory that is new costs as much as what is written to it. So there is one room for all
        # batches; and glibc, once given back as much, keeps what narrowing gives back.
        given_back = np.empty(_KEPT, np.uint8)
        del given_back
        self._room = np.empty(0, np.uint8)
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _THREADS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, batch: Batch) -> Future[Made]:
        """Has another thread `make` a batch."""
        return self._pool.submit(self.make, batch)

    def make(self, batch: Batch) -> Made:
        """A batch, whose parts are made or being made; the rows of the one before are gone then.

        Raises:
            InputError: a name or a source is no good, or a user is named twice; a part may raise it
                for a row.
        """
        keys, rising = keys_of(batch.users)
        sources = _sources(batch.source)
        created = time.time_ns() // 1_000_000
        count, size = len(keys), self._codec.row_bytes
        step = self._step or count
        if count <= step:
            raw = self._codec.encode(batch.rows, batch.users)
            whole: Future[Bytes] = Future()
            whole.set_result(row_seals(keys, created, sources, raw.reshape(-1).data))
            return Made(keys, rising, created, sources, raw, [whole])
        if self._room.size < count * size:
            self._room = np.empty(count * size, np.uint8)
        raw = self._room[: count * size].reshape(count, size)

        def part(start: int) -> Bytes:
            some = slice(start, start + step)
            self._codec.encode(batch.rows.at(some), batch.users[some], out=raw[some])
            said = sources if isinstance(sources, bytes) else sources[some]
            return row_seals(keys[some], created, said, raw[some].reshape(-1).data)

        parts = [self._pool.submit(part, start) for start in range(0, count, step)]
        return Made(keys, rising, created, sources, raw, parts)


def keys_of(users: Sequence[str]) -> tuple[list[bytes], bool]:
    """The keys of users, and whether each is greater than the one before.

    Raises:
        InputError: a name is no good, or is there twice.
    """
    keys = user_keys(users)
    if all(map(lt, keys, keys[1:])):
        return keys, True
    seen: set[bytes] = set()
    for key, user in zip(keys, users, strict=True):
        if key in seen:
            raise InputError("is named twice", field=user[:80], fix="keep one of the two")
        seen.add(key)
    return keys, False


def _sources(source: str | Sequence[str]) -> bytes | list[bytes]:
    if isinstance(source, str):
        return _origin(source)
    known = {text: _origin(text) for text in set(source)}
    return [known[text] for text in source]


def _origin(text: str) -> bytes:
    origin = text.encode()
    if len(origin) > _SOURCE_BYTES:
        raise InputError(f"is longer than {_SOURCE_BYTES} bytes", field="source", fix="shorten it")
    return origin
