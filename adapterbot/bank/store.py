"""The bank on disk, read: LMDB under a manifest. (numpy, lmdb; no torch) Writing is `writer`'s.

Why LMDB: one file, read through the page cache without a server or a copy; opening costs the same
for ten users or a million; readers never wait for the writer; a transaction is whole or absent
after a kill at any moment, without a log to replay. SQLite copies every row and parses SQL for it;
RocksDB and its like need background threads and replay a log on opening.

Rows of a few hundred bytes would waste a fifth of LMDB's pages, and rows a little over half a page
would waste half. So rows lie packed in blocks of several pages, numbered by slot; `users` says
which slot is whose. Every record is sealed with a digest over all that it says, key included.

    users    name → seal, slot, created (ms), source
    rows     block number → `per_block` rows
    free     slot → nothing: slots of removed users
    sources  number ↔ text: where rows came from, once
    scores   name → seal, JSON
    keys     SHA-256 of an API key → seal, name
    facts    "state" → seal, next slot, users, sum of all seals modulo 2¹²⁸;
             "moved" → the file that takes this one's place

Compacting makes a new file of rows, which every reader follows with its next snapshot. Handles of
one file are no good in another, so a snapshot brings its own; and a file is let go of when the last
snapshot of it has ended.

LMDB trusts its own file: a stranger's is never opened (`portable` is what travels).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np

from adapterbot.bank.blocks import Blocks
from adapterbot.bank.codec import Bytes, Codec, Rows
from adapterbot.bank.environment import DAMAGE, Shared, acquire, damaged, release
from adapterbot.bank.manifest import MANIFEST, read_manifest, user_key
from adapterbot.bank.records import NUMBER, SEAL, Entry, Place, State, row_seal, seal, slot_of
from adapterbot.errors import InputError, OurFailure

Tables = Mapping[str, Any]
"""LMDB's handles, by name."""

MOVED = b"moved"
"""In `facts`: the file that compacting has made of this one, and that the next writer goes to."""


@dataclass(eq=False)
class _File:
    """A file of rows as one store has it open, and the snapshots of it that are being read."""

    shared: Shared
    stamp: tuple[int, int]
    seen: int = -1
    snapshots: set[Snapshot] = field(default_factory=set)


class Snapshot:
    """What was committed when it began. A context manager: the transaction, and its tables."""

    __slots__ = ("_file", "_store", "_txn")

    def __init__(self, store: BankStore) -> None:
        self._store = store

    def __enter__(self) -> tuple[lmdb.Transaction, Tables]:
        self._file, self._txn = self._store.begun(self)
        return self._txn, self._file.shared.db

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._txn.abort()
        self._store.ended(self, self._file)
        if error is not None and isinstance(error, DAMAGE):
            raise damaged(self._store.path, error) from error

    @property
    def stamp(self) -> tuple[int, int]:
        """Of the manifest that names its file."""
        return self._file.stamp


class BankStore:
    """An open bank. Any number of processes and threads read; one writes at a time.

    Attributes:
        path: the bank's directory.
        manifest: what its rows are.
        codec: how they are written.
        blocks: how they are packed.
    """

    def __init__(self, path: Path | str) -> None:
        """Opens the bank in `path`; costs the same whatever its size.

        Raises:
            InputError: it is not a bank.
            OurFailure: its file is damaged or cannot be mapped.
        """
        self.path = Path(path)
        self._opening = threading.Lock()
        self._closed = False
        self._left: list[_File] = []  # files that have moved, and are still being read
        self._file = self._opened()

    def _opened(self) -> _File:
        while True:
            stamp = self._current()
            try:
                return self._of_manifest(stamp)
            except (InputError, OurFailure):
                # Compacted once more meanwhile, and the file is gone that the manifest named.
                if self._current() == stamp:
                    raise

    def _of_manifest(self, stamp: tuple[int, int]) -> _File:
        self.manifest = read_manifest(self.path)
        self.codec = Codec(self.manifest)
        self.blocks = Blocks(self.codec.row_bytes)
        file = self.path / self.manifest.rows
        if file.is_symlink() or not file.is_file():
            raise InputError("does not exist", file=str(file), fix="restore it from a backup")
        return _File(acquire(file), stamp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the file. Twice is once."""
        with self._opening:
            if not self._closed:
                self._closed = True
                for file in (self._file, *self._left):
                    release(file.shared)
                self._left.clear()

    # ------------------------------------------------------------ reading

    @property
    def version(self) -> int:
        """A number that changes with every commit, whoever commits."""
        snapshot = self.reading()
        with snapshot as (txn, _):
            return hash((snapshot.stamp, txn.id()))

    def __len__(self) -> int:
        with self.reading() as (txn, db):
            return state_of(txn, db).users

    def __contains__(self, user: str) -> bool:
        with self.reading() as (txn, db):
            return txn.get(user_key(user), db=db["users"]) is not None

    def users(self, prefix: str = "") -> Iterator[str]:
        """Names in byte order, those that start with `prefix`; a snapshot of when it began."""
        start = prefix.encode()
        with self.reading() as (txn, db):
            cursor = txn.cursor(db=db["users"])
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key in cursor.iternext(keys=True, values=False):
                name = bytes(key)
                if not name.startswith(start):
                    return
                yield name.decode()

    def entry(self, user: str) -> Entry:
        """What is known of a user.

        Raises:
            InputError: there is no such user.
        """
        with self.reading() as (txn, db):
            found = place_of(txn, db, user)
            scores = txn.get(user_key(user), db=db["scores"])
            return Entry(
                user=user,
                digest=found.seal.hex(),
                created=found.created / 1000,
                source=_source(txn, db, found.source),
                scores=json.loads(bytes(scores)[SEAL:]) if scores is not None else {},
            )

    def digests(self, users: Sequence[str]) -> list[bytes | None]:
        """Each user's seal, which changes when the row does; None where there is no such user."""
        with self.reading() as (txn, db):
            found = [txn.get(user_key(user), db=db["users"]) for user in users]
            return [None if entry is None else bytes(entry[:SEAL]) for entry in found]

    def gather(self, users: Sequence[str], *, check: bool = False) -> Rows:
        """The rows of `users`, in order, from one snapshot.

        Args:
            users: names; one that is named twice is read twice.
            check: also compare every row with its digest (some microseconds each).

        Raises:
            InputError: there is no such user.
            OurFailure: a row is damaged.
        """
        return self.codec.decode(self.raw(users, check=check))

    def raw(self, users: Sequence[str], *, check: bool = False) -> Bytes:
        """As `gather`, undecoded: (n, row_bytes)."""
        with self.reading() as (txn, db):
            return self._raw(txn, db, users, check=check)

    def raw_parts(self, users: Sequence[str], *, size: int) -> Iterator[Bytes]:
        """As `raw` with `check`, `size` users at a time, all from one snapshot."""
        with self.reading() as (txn, db):
            for start in range(0, len(users), size):
                yield self._raw(txn, db, users[start : start + size], check=True)

    def _raw(
        self, txn: lmdb.Transaction, db: Tables, users: Sequence[str], *, check: bool
    ) -> Bytes:
        size, place, parts = self.codec.row_bytes, self.blocks.place, []
        names, rows, get = db["users"], db["rows"], txn.get
        for user in users:
            found = get(user_key(user), db=names)
            if found is None:
                raise _unknown(user)
            block, start = place(slot_of(found))
            held = get(block, db=rows)
            if held is None:
                raise damaged(self.path, f"the row of {user[:80]} is missing")
            row = held[start : start + size]
            if check and not _sound(txn, db, user, found, row):
                raise damaged(self.path, f"the row of {user[:80]} was altered")
            parts.append(row)
        whole = bytearray().join(parts)
        return np.frombuffer(whole, np.uint8).reshape(len(parts), size)

    def key_owner(self, key_hash: bytes) -> str | None:
        """The user whom an API key with this SHA-256 belongs to."""
        with self.reading() as (txn, db):
            found = txn.get(key_hash, db=db["keys"])
            if found is None or bytes(found[:SEAL]) != seal(key_hash, bytes(found[SEAL:])):
                return None
            return bytes(found[SEAL:]).decode()

    # ------------------------------------------------------------ snapshots

    def reading(self) -> Snapshot:
        """A snapshot; of the new file, when compacting has moved the rows."""
        return Snapshot(self)

    def begun(self, snapshot: Snapshot) -> tuple[_File, lmdb.Transaction]:
        """The file that a snapshot is of, which stays open for it, and its transaction."""
        while True:
            file = self._file
            file.snapshots.add(snapshot)
            # Whoever moves us looks at the snapshots after the new file is in place: either it
            # sees this one, or this one sees the new file.
            if file is not self._file:
                self.ended(snapshot, file)
                continue
            txn = file.shared.env.begin(buffers=True)
            if txn.id() == file.seen:
                return file, txn
            if self._current() == file.stamp:
                # Of a file that is about to move, the manifest is looked at until it has.
                try:
                    if txn.get(MOVED, db=file.shared.db["facts"]) is None:
                        file.seen = txn.id()
                except DAMAGE as error:
                    txn.abort()
                    self.ended(snapshot, file)
                    raise damaged(self.path, error) from error
                return file, txn
            txn.abort()
            self.ended(snapshot, file)
            self._reopen(file)

    def ended(self, snapshot: Snapshot, file: _File) -> None:
        """A snapshot is read no more."""
        file.snapshots.discard(snapshot)
        if file is not self._file:
            with self._opening:
                if file in self._left and not file.snapshots:
                    self._left.remove(file)
                    release(file.shared)

    def _current(self) -> tuple[int, int]:
        """What tells one manifest from the next; of one that is not there, `read_manifest` says
        what is wrong."""
        try:
            stat = (self.path / MANIFEST).stat()
        except OSError:
            return 0, 0
        return stat.st_ino, stat.st_mtime_ns

    def _reopen(self, moved: _File) -> None:
        """Goes over to the file that the manifest names now, unless another thread has."""
        with self._opening:
            if self._file is not moved:
                return
            self._file = self._opened()
            if moved.snapshots:
                self._left.append(moved)
            else:
                release(moved.shared)


def state_of(txn: lmdb.Transaction, db: Tables) -> State:
    """What a store says of itself as a whole."""
    held = txn.get(b"state", db=db["facts"])
    return State() if held is None else State.unpack(bytes(held))


def place_of(txn: lmdb.Transaction, db: Tables, user: str) -> Place:
    """A user's record.

    Raises:
        InputError: there is no such user.
    """
    found = txn.get(user_key(user), db=db["users"])
    if found is None:
        raise _unknown(user)
    return Place.unpack(found)


def _sound(
    txn: lmdb.Transaction,
    db: Tables,
    user: str,
    found: bytes | memoryview,
    row: bytes | memoryview,
) -> bool:
    place = Place.unpack(found)
    source = _source(txn, db, place.source).encode()
    return row_seal(user_key(user), place.created, source, bytes(row)) == place.seal


def _source(txn: lmdb.Transaction, db: Tables, number: int) -> str:
    held = txn.get(b"n" + NUMBER.pack(number), db=db["sources"])
    return "" if held is None else bytes(held).decode()


def _unknown(user: str) -> InputError:
    return InputError("is not in the bank", field=user[:80], fix="see `adapterbot bank list`")
