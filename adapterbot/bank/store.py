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
    facts    "state" → seal, next slot, users, sum of all seals modulo 2¹²⁸

LMDB trusts its own file: a stranger's is never opened (`portable` is what travels).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import lmdb
import numpy as np

from adapterbot.bank.blocks import Blocks
from adapterbot.bank.codec import Bytes, Codec, Rows
from adapterbot.bank.environment import acquire, damaged, release
from adapterbot.bank.manifest import MANIFEST, read_manifest, user_key
from adapterbot.bank.records import NUMBER, SEAL, Entry, Place, State, row_seal, seal, slot_of
from adapterbot.errors import InputError


class BankStore:
    """An open bank. Any number of processes and threads read; one writes at a time.

    Attributes:
        path: the bank's directory.
        manifest: what its rows are.
        codec: how they are written.
        blocks: how they are packed.
        tables: LMDB's handles, by name.
    """

    def __init__(self, path: Path | str) -> None:
        """Opens the bank in `path`; costs the same whatever its size.

        Raises:
            InputError: it is not a bank.
            OurFailure: its file is damaged or cannot be mapped.
        """
        self.path = Path(path)
        self._opening = threading.RLock()
        self._closed = False
        self._open()

    def _open(self) -> None:
        try:
            stamp = self._current()
        except OSError:
            stamp = (0, 0)  # `read_manifest` says what is wrong
        self.manifest = read_manifest(self.path)
        self.codec = Codec(self.manifest)
        self.blocks = Blocks(self.codec.row_bytes)
        file = self.path / self.manifest.rows
        if file.is_symlink() or not file.is_file():
            raise InputError("does not exist", file=str(file), fix="restore it from a backup")
        self._shared = acquire(file)
        self._env, self.tables = self._shared.env, self._shared.db
        self._stamp = stamp
        self._seen = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps the file. Twice is once."""
        if not self._closed:
            self._closed = True
            release(self._shared)

    # ------------------------------------------------------------ reading

    @property
    def version(self) -> int:
        """A number that changes with every commit, whoever commits."""
        self._follow()
        return hash((self._stamp, int(self._env.info()["last_txnid"])))

    def __len__(self) -> int:
        with self.reading() as txn:
            return self.state(txn).users

    def __contains__(self, user: str) -> bool:
        with self.reading() as txn:
            return txn.get(user_key(user), db=self.tables["users"]) is not None

    def users(self, prefix: str = "") -> Iterator[str]:
        """Names in byte order, those that start with `prefix`; a snapshot of when it began."""
        start = prefix.encode()
        with self.reading() as txn:
            cursor = txn.cursor(db=self.tables["users"])
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
        with self.reading() as txn:
            found = self._entry(txn, user)
            scores = txn.get(user_key(user), db=self.tables["scores"])
            return Entry(
                user=user,
                digest=found.seal.hex(),
                created=found.created / 1000,
                source=self._source(txn, found.source),
                scores=json.loads(bytes(scores)[SEAL:]) if scores is not None else {},
            )

    def digests(self, users: Sequence[str]) -> list[bytes | None]:
        """Each user's seal, which changes when the row does; None where there is no such user."""
        with self.reading() as txn:
            found = [txn.get(user_key(user), db=self.tables["users"]) for user in users]
            return [None if entry is None else bytes(entry[:SEAL]) for entry in found]

    def gather(self, users: Sequence[str], *, check: bool = False) -> Rows:
        """The rows of `users`, in order, from one snapshot.

        Args:
            users: names; one that is named twice is read twice.
            check: also compare every row with its digest (about 1 µs per 512 bytes).

        Raises:
            InputError: there is no such user.
            OurFailure: a row is damaged.
        """
        return self.codec.decode(self.raw(users, check=check))

    def raw(self, users: Sequence[str], *, check: bool = False) -> Bytes:
        """As `gather`, undecoded: (n, row_bytes)."""
        size, place, parts = self.codec.row_bytes, self.blocks.place, []
        with self.reading() as txn:
            # Looked up after the snapshot was taken: it may be one of another file.
            names, rows, get = self.tables["users"], self.tables["rows"], txn.get
            for user in users:
                found = get(user_key(user), db=names)
                if found is None:
                    raise _unknown(user)
                block, start = place(slot_of(found))
                held = get(block, db=rows)
                if held is None:
                    raise damaged(self._env.path(), f"the row of {user[:80]} is missing")
                row = held[start : start + size]
                if check and not self._sound(txn, user, found, row):
                    raise damaged(self._env.path(), f"the row of {user[:80]} was altered")
                parts.append(row)
            whole = bytearray().join(parts)
        return np.frombuffer(whole, np.uint8).reshape(len(parts), size)

    def key_owner(self, key_hash: bytes) -> str | None:
        """The user whom an API key with this SHA-256 belongs to."""
        with self.reading() as txn:
            found = txn.get(key_hash, db=self.tables["keys"])
            if found is None or bytes(found[:SEAL]) != seal(key_hash, bytes(found[SEAL:])):
                return None
            return bytes(found[SEAL:]).decode()

    def state(self, txn: lmdb.Transaction) -> State:
        """What the store says of itself as a whole."""
        held = txn.get(b"state", db=self.tables["facts"])
        if held is None:
            return State()
        return State.unpack(bytes(held))

    def _entry(self, txn: lmdb.Transaction, user: str) -> Place:
        found = txn.get(user_key(user), db=self.tables["users"])
        if found is None:
            raise _unknown(user)
        return Place.unpack(found)

    def _sound(
        self, txn: lmdb.Transaction, user: str, found: bytes | memoryview, row: bytes | memoryview
    ) -> bool:
        place = Place.unpack(found)
        source = self._source(txn, place.source).encode()
        return row_seal(user_key(user), place.created, source, bytes(row)) == place.seal

    def _source(self, txn: lmdb.Transaction, number: int) -> str:
        held = txn.get(b"n" + NUMBER.pack(number), db=self.tables["sources"])
        return "" if held is None else bytes(held).decode()

    def reading(self) -> lmdb.Transaction:
        """A snapshot, as a context manager; of the new file, when compacting has moved the rows."""
        txn = self._env.begin(buffers=True)
        if txn.id() != self._seen:
            self._seen = txn.id()
            if self._current() != self._stamp:
                txn.abort()
                self._reopen()
                txn = self._env.begin(buffers=True)
        return txn

    def _current(self) -> tuple[int, int]:
        stat = (self.path / MANIFEST).stat()
        return stat.st_ino, stat.st_mtime_ns

    def _follow(self) -> None:
        if self._current() != self._stamp:
            self._reopen()

    def _reopen(self) -> None:
        with self._opening:
            old = self._shared
            self._open()
            release(old)


def _unknown(user: str) -> InputError:
    return InputError("is not in the bank", field=user[:80], fix="see `adapterbot bank list`")
