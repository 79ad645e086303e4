"""The bank on disk, written: every change is one transaction, whole or absent. (numpy, lmdb)"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np

from adapterbot import atomic
from adapterbot.bank import blocks
from adapterbot.bank.codec import Bytes, Rows
from adapterbot.bank.environment import Shared, acquire, damaged, release
from adapterbot.bank.manifest import MANIFEST, Manifest, dump_manifest, user_key
from adapterbot.bank.records import MODULUS, NUMBER, SEAL, Place, State, pack, row_seals, seal
from adapterbot.bank.store import BankStore
from adapterbot.errors import InputError, OurFailure

_FULL = "free some disk space"
_SOURCE_BYTES = 400
# From here on hashlib lets other threads run, and numpy has a while to do.
_LARGE = 2048
_PART = 1 << 20


class BankWriter(BankStore):
    """An open bank that may be changed. One transaction at a time, over all processes."""

    def add(
        self, users: Sequence[str], rows: Rows, *, source: str = "", replace: bool = False
    ) -> None:
        """Adds users in one transaction: all of them, or none.

        Args:
            users: their names.
            rows: one for each.
            source: where they come from, at most 400 bytes.
            replace: whether users that are there already get new rows.

        Raises:
            InputError: a name or a row is no good, or a user is there already.
            OurFailure: the disk is full.
        """
        if len(rows) != len(users):
            raise ValueError("one row for each user")
        keys = [user_key(user) for user in users]
        if len(set(keys)) != len(keys):
            raise _twice(users)
        origin = source.encode()
        if len(origin) > _SOURCE_BYTES:
            raise InputError(
                f"is longer than {_SOURCE_BYTES} bytes", field="source", fix="shorten it"
            )
        now = time.time_ns() // 1_000_000
        raw, seals = self._sealed(users, keys, rows, now, origin)
        with self._writing() as txn:
            found = txn.cursor(db=self.tables["users"]).getmulti(keys)
            known = {bytes(key): Place.unpack(held) for key, held in found}
            if known and not replace:
                raise _known(next(iter(known)).decode())
            state = self.state(txn)
            before = [known.get(key) for key in keys]
            slots, next_slot = self._slots(txn, before, state.next_slot)
            blocks.write(txn, self.tables["rows"], self.blocks, slots, raw)
            number = self._source_number(txn, origin)
            total = state.total - sum(place.number for place in known.values())
            total += sum(int.from_bytes(mark, "little") for mark in seals)
            places = zip(seals, slots.tolist(), strict=True)
            items = [
                (key, pack(mark, slot, now, number))
                for key, (mark, slot) in zip(keys, places, strict=True)
            ]
            self._put_users(txn, items)
            for key in known:
                txn.delete(key, db=self.tables["scores"])
            users_now = state.users + len(keys) - len(known)
            self._set(txn, State(next_slot, users_now, total % MODULUS))

    def refuse_known(self, users: Sequence[str]) -> None:
        """Raises what `add` would raise for users who are named twice or are there already.

        Raises:
            InputError: with the first of them.
        """
        if len(set(users)) != len(users):
            raise _twice(users)
        for user, digest in zip(users, self.digests(users), strict=True):
            if digest is not None:
                raise _known(user)

    def remove(self, users: Sequence[str]) -> None:
        """Removes users, their scores and their API keys, in one transaction.

        Raises:
            InputError: one of them is not there; nothing is then removed.
        """
        with self._writing() as txn:
            state = self.state(txn)
            total, gone = state.total, set()
            for user in dict.fromkeys(users):
                found = self._entry(txn, user)
                total -= found.number
                gone.add(user_key(user))
                txn.delete(user_key(user), db=self.tables["users"])
                txn.delete(user_key(user), db=self.tables["scores"])
                txn.put(NUMBER.pack(found.slot), b"", db=self.tables["free"])
            cursor = txn.cursor(db=self.tables["keys"])
            for held in [k for k, owner in cursor if owner[SEAL:] in gone]:
                txn.delete(held, db=self.tables["keys"])
            self._set(txn, State(state.next_slot, state.users - len(gone), total % MODULUS))

    def set_scores(self, user: str, scores: Mapping[str, float]) -> None:
        """Notes what an evaluation found of a user."""
        with self._writing() as txn:
            self._entry(txn, user)
            text = json.dumps(dict(scores), allow_nan=False).encode()
            key = user_key(user)
            txn.put(key, seal(key, text) + text, db=self.tables["scores"])

    def add_key(self, user: str, key_hash: bytes) -> None:
        """Notes that an API key with this SHA-256 belongs to a user.

        Raises:
            InputError: there is no such user.
        """
        with self._writing() as txn:
            self._entry(txn, user)
            name = user_key(user)
            txn.put(key_hash, seal(key_hash, name) + name, db=self.tables["keys"])

    def drop_keys(self, user: str) -> int:
        """Revokes every API key of a user; how many there were."""
        with self._writing() as txn:
            name = user_key(user)
            cursor = txn.cursor(db=self.tables["keys"])
            held = [key for key, owner in cursor if owner[SEAL:] == name]
            for key in held:
                txn.delete(key, db=self.tables["keys"])
            return len(held)

    def compact(self) -> tuple[int, int]:
        """Rewrites the rows without gaps, in the order of names; bytes on disk before and after.

        The new file takes the old one's place when it is whole; readers and writers of other
        processes follow it with their next transaction.

        Raises:
            OurFailure: the new file cannot be written.
        """
        with self._writing() as txn:
            old = Path(self._env.path())
            number = int(old.stem.removeprefix("rows-")) + 1
            new = self.path / f"rows-{number}.mdb"
            _unlink(new)  # what a killed compaction left
            fresh = acquire(new, make=True)
            try:
                with fresh.env.begin(write=True) as target:
                    self._copy(txn, fresh, target)
            except lmdb.Error as error:
                raise OurFailure(f"{new}: {error}", fix=_FULL) from error
            finally:
                release(fresh)
            before = old.stat().st_size
            # The writer's lock on the old file is still held: whoever waits for it sees this. And
            # that something is committed to the old file has its readers look.
            self._point_to(new.name)
            txn.put(b"moved", new.name.encode(), db=self.tables["facts"])
        self._reopen()
        _unlink(old)
        return before, new.stat().st_size

    # ---- inside

    def _sealed(
        self, users: Sequence[str], keys: Sequence[bytes], rows: Rows, created: int, source: bytes
    ) -> tuple[Bytes, list[bytes]]:
        """The rows as they are kept, and their seals; large rows are made on every core."""
        size = self.codec.row_bytes
        raw = np.empty((len(rows), size), np.uint8)
        step = max(1, len(rows) if size < _LARGE else _PART // size)

        def part(start: int) -> list[bytes]:
            some = slice(start, start + step)
            numbers = Rows(rows.values[some], rows.choices[some])
            self.codec.encode(numbers, users[some], out=raw[some])
            return row_seals(keys[some], created, source, raw[some].reshape(-1).data)

        if len(rows) <= step:
            return raw, part(0)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            sealed = pool.map(part, range(0, len(rows), step))
            return raw, [mark for marks in sealed for mark in marks]

    def _copy(self, txn: lmdb.Transaction, fresh: Shared, target: lmdb.Transaction) -> None:
        db = fresh.db
        for name in ("sources", "scores", "keys"):
            for key, value in txn.cursor(db=self.tables[name]):
                target.put(key, value, db=db[name], append=True)
        per, size = self.blocks.per_block, self.codec.row_bytes
        pending = np.zeros((per, size), np.uint8)
        count = 0
        for key, value in txn.cursor(db=self.tables["users"]):
            place = Place.unpack(value)
            block, start = self.blocks.place(place.slot)
            held = txn.get(block, db=self.tables["rows"])
            if held is None:
                raise damaged(self._env.path(), "a row is missing")
            pending[count % per] = np.frombuffer(held, np.uint8, size, start)
            target.put(key, place._replace(slot=count).packed(), db=db["users"], append=True)
            count += 1
            if count % per == 0:
                target.put(self.blocks.place(count - 1)[0], pending.data, db=db["rows"])
        if count % per:
            target.put(self.blocks.place(count - 1)[0], pending.data, db=db["rows"])
        state = self.state(txn)
        target.put(b"state", State(count, state.users, state.total).packed(), db=db["facts"])

    def _slots(
        self, txn: lmdb.Transaction, before: Sequence[Place | None], next_slot: int
    ) -> tuple[np.ndarray, int]:
        """A slot for each row: its own where it has one, then freed ones, then new ones."""
        wanted = before.count(None)
        cursor = txn.cursor(db=self.tables["free"])
        freed: list[bytes] = []
        for key in cursor.iternext(keys=True, values=False):
            if len(freed) == wanted:
                break
            freed.append(bytes(key))
        for key in freed:
            txn.delete(key, db=self.tables["free"])
        new = next_slot + wanted - len(freed)
        if new > 2**32:
            raise InputError("is full: it has 2³² slots", file=str(self.path), fix="split the bank")
        given = iter([*(NUMBER.unpack(key)[0] for key in freed), *range(next_slot, new)])
        slots = [next(given) if place is None else place.slot for place in before]
        return np.array(slots, dtype=np.int64), new

    def _put_users(self, txn: lmdb.Transaction, items: list[tuple[bytes, bytes]]) -> None:
        items.sort()
        cursor = txn.cursor(db=self.tables["users"])
        last = bytes(cursor.key()) if cursor.last() else b""
        # Behind all others they fill their pages; else a page that overflows is split in two.
        cursor.putmulti(items, append=bool(items) and items[0][0] > last)

    def _set(self, txn: lmdb.Transaction, state: State) -> None:
        txn.put(b"state", state.packed(), db=self.tables["facts"])

    def _source_number(self, txn: lmdb.Transaction, text: bytes) -> int:
        if not text:
            return 0
        sources = self.tables["sources"]
        known = txn.get(b"t" + text, db=sources)
        if known is not None:
            return int(NUMBER.unpack(known)[0])
        number = txn.stat(sources)["entries"] // 2 + 1
        txn.put(b"t" + text, NUMBER.pack(number), db=sources)
        txn.put(b"n" + NUMBER.pack(number), text, db=sources)
        return int(number)

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        while True:
            txn = self._env.begin(write=True)
            # The lock is ours; did the file move while we waited for it?
            if self._current() == self._stamp:
                break
            txn.abort()
            self._reopen()
        try:
            yield txn
            txn.commit()
        except lmdb.MapFullError as error:
            raise OurFailure(f"{self.path} is full", fix="split the bank") from error
        except (lmdb.DiskError, OSError) as error:
            raise OurFailure(f"{self.path}: {error}", fix=_FULL) from error
        finally:
            txn.abort()

    def _point_to(self, rows: str) -> None:
        moved = self.manifest.model_copy(update={"rows": rows})
        atomic.write_text(self.path / MANIFEST, dump_manifest(moved))


def _known(user: str) -> InputError:
    return InputError("is in the bank already", field=user[:80], fix="use --replace")


def _twice(users: Sequence[str]) -> InputError:
    twice = next(user for user in users if users.count(user) > 1)
    return InputError("is named twice", field=twice[:80], fix="keep one of the two")


def _unlink(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.with_name(f"{file.name}-lock").unlink(missing_ok=True)


def create(path: Path, manifest: Manifest) -> BankWriter:
    """A new, empty bank in directory `path`, opened for writing.

    Raises:
        InputError: there is something already, or it cannot be written.
    """
    if path.is_symlink() or (path.exists() and (not path.is_dir() or (path / MANIFEST).exists())):
        raise InputError("exists already", file=str(path), fix="name another place, or remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("cannot be written", file=str(path), fix="choose another place") from error
    _unlink(path / manifest.rows)
    made = acquire(path / manifest.rows, make=True)
    # The manifest last: without it the directory is not a bank yet.
    atomic.write_text(path / MANIFEST, dump_manifest(manifest))
    release(made)
    return BankWriter(path)
