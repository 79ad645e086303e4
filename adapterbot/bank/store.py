"""The bank on disk, read: LMDB and a file of rows under a manifest. (numpy, lmdb; no torch)

Writing is `writer`'s. Why LMDB: opening costs the same for ten users or a million; readers never
wait for the writer; a transaction is whole or absent after a kill at any moment, without a log to
replay. SQLite parses SQL for every row; RocksDB and its like need background threads and replay a
log on opening.

LMDB copies what it is given twice, and then waits until it is on the disk. So rows lie in a file
of their own (`rowfile`), one behind the other, numbered by slot; `users` says which slot is whose.
Rows are on the disk before the transaction that tells of them. A slot is given once: that of a
removed or replaced row stays empty until the bank is compacted. Every record is sealed with a
digest over all that it says, key included.

    users    name → seal, slot, created (ms), source
    sources  number ↔ text: where rows came from, once
    scores   name → seal, JSON
    keys     SHA-256 of an API key → seal, name
    facts    "state" → seal, next slot, users, sum of all seals modulo 2¹²⁸;
             "moved" → the file that takes this one's place

LMDB trusts its own file: a stranger's is never opened (`portable` is what travels).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import lmdb
import numpy as np

from adapterbot.bank.codec import BYTE, Bytes, Rows
from adapterbot.bank.failures import damaged
from adapterbot.bank.manifest import user_key
from adapterbot.bank.opened import OpenBank, Tables, state_of
from adapterbot.bank.records import ENTRY, NUMBER, SEAL, Entry, Place, row_seal, seal
from adapterbot.bank.rowfile import RowFile
from adapterbot.errors import InputError


class BankStore(OpenBank):
    """An open bank. Any number of processes and threads read; one writes at a time."""

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
                source=_source(txn, db, found.source).decode(),
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
        snapshot = self.reading()
        with snapshot as (txn, db):
            return self._raw(txn, db, snapshot.rows, users, check)

    @contextmanager
    def picked(
        self, users: Sequence[str] | None = None
    ) -> Iterator[tuple[Sequence[str], Callable[[int], Iterator[Bytes]]]]:
        """Names, and a function that yields their rows, checked, so many at a time: all from one
        snapshot, whatever is written meanwhile.

        Args:
            users: None for all of them, in byte order.
        """
        snapshot = self.reading()
        with snapshot as (txn, db):
            if users is None:
                held = txn.cursor(db=db["users"]).iternext(keys=True, values=False)
                users = [bytes(key).decode() for key in held]
            names = users

            def parts(size: int) -> Iterator[Bytes]:
                for start in range(0, len(names), size):
                    yield self._raw(txn, db, snapshot.rows, names[start : start + size], True)

            yield names, parts

    def _raw(
        self, txn: lmdb.Transaction, db: Tables, rows: RowFile, users: Sequence[str], check: bool
    ) -> Bytes:
        size, names, get, read = self.codec.row_bytes, db["users"], txn.get, rows.read
        sources: dict[int, bytes] = {}
        raw = np.empty((len(users), size), BYTE)
        places = raw.reshape(-1).data
        for at, user in enumerate(users):
            key = user_key(user)
            found = get(key, None, names)
            if found is None:
                raise _unknown(user)
            mark, slot, created, source = ENTRY.unpack(found)
            row = places[at * size : (at + 1) * size]
            read(slot, row)
            if check:
                if source not in sources:
                    sources[source] = _source(txn, db, source)
                if row_seal(key, created, sources[source], row) != mark:
                    raise damaged(self.path, f"the row of {user[:80]} was altered")
        return raw

    def key_owner(self, key_hash: bytes) -> str | None:
        """The user whom an API key with this SHA-256 belongs to."""
        with self.reading() as (txn, db):
            found = txn.get(key_hash, db=db["keys"])
            if found is None or bytes(found[:SEAL]) != seal(key_hash, bytes(found[SEAL:])):
                return None
            return bytes(found[SEAL:]).decode()


def place_of(txn: lmdb.Transaction, db: Tables, user: str) -> Place:
    """A user's record.

    Raises:
        InputError: there is no such user.
    """
    found = txn.get(user_key(user), db=db["users"])
    if found is None:
        raise _unknown(user)
    return Place.unpack(found)


def _source(txn: lmdb.Transaction, db: Tables, number: int) -> bytes:
    return bytes(txn.get(b"n" + NUMBER.pack(number), b"", db["sources"]))


def _unknown(user: str) -> InputError:
    return InputError("is not in the bank", field=user[:80], fix="see `adapterbot bank list`")
