"""The bank on disk, written: every change is one transaction, whole or absent. (numpy, lmdb)

Rows are on the disk before LMDB commits what tells of them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from adapterbot.bank import compaction
from adapterbot.bank.batch import Batch, Made, Maker
from adapterbot.bank.codec import Rows
from adapterbot.bank.environment import DAMAGE, acquire, bytes_on_disk, release
from adapterbot.bank.failures import damaged, not_writable
from adapterbot.bank.manifest import MANIFEST, Manifest, dump_manifest, user_key
from adapterbot.bank.opened import MOVED, Tables, state_of
from adapterbot.bank.records import MODULUS, NUMBER, SEAL, Place, State, packed, seal, summed
from adapterbot.bank.store import BankStore, place_of
from adapterbot.errors import AdapterbotError, InputError, OurFailure
from adapterbot.files import atomic, there


class BankWriter(BankStore):
    """An open bank that may be changed. One transaction at a time, over all processes."""

    def add(
        self,
        users: Sequence[str],
        rows: Rows,
        *,
        source: str | Sequence[str] = "",
        replace: bool = False,
    ) -> None:
        """Adds users in one transaction: all of them, or none.

        Args:
            users: their names.
            rows: one for each.
            source: where they come from, or where each of them does; at most 400 bytes.
            replace: whether users that are there already get new rows.

        Raises:
            InputError: a name or a row is no good, or a user is there already.
            OurFailure: the disk is full.
        """
        self.add_all([Batch(users, rows, source)], replace=replace)

    def add_all(self, batches: Iterable[Batch], *, replace: bool = False) -> None:
        """Adds batches, each in one transaction; the next is made while one is on its way to disk.

        Batches of `BATCH_BYTES` are as fast as the disk. The first one that is no good ends it: the
        batches before it are kept, and nothing of it or after it. A kill takes no batch that was
        committed; until this returns, a power cut may take the last one.

        Raises:
            As `add`.
        """
        upcoming = iter(batches)
        with Maker(self.codec) as maker:
            batch = next(upcoming, None)
            made = None if batch is None else maker.make(batch)
            added = False
            try:
                while made is not None:
                    batch = next(upcoming, None)
                    following = None
                    with self._transaction() as txn, self._put(txn, made, replace=replace):
                        if batch is not None:
                            following = maker.begin(batch)
                    added = True
                    made = None if following is None else following.result()
            finally:
                if added:
                    self._sync()

    def remove(self, users: Sequence[str]) -> None:
        """Removes users, their scores and their API keys, in one transaction.

        Raises:
            InputError: one of them is not there; nothing is then removed.
        """
        with self._writing() as txn:
            state = state_of(txn, self._tables)
            total, gone = state.total, set()
            for user in dict.fromkeys(users):
                found = place_of(txn, self._tables, user)
                total -= found.number
                gone.add(user_key(user))
                txn.delete(user_key(user), db=self._tables["users"])
                txn.delete(user_key(user), db=self._tables["scores"])
            cursor = txn.cursor(db=self._tables["keys"])
            for held in [k for k, owner in cursor if owner[SEAL:] in gone]:
                txn.delete(held, db=self._tables["keys"])
            self._set(txn, State(state.next_slot, state.users - len(gone), total % MODULUS))

    def set_scores(self, user: str, scores: Mapping[str, float]) -> None:
        """Notes what an evaluation found of a user."""
        with self._writing() as txn:
            place_of(txn, self._tables, user)
            text = json.dumps(dict(scores), allow_nan=False).encode()
            key = user_key(user)
            txn.put(key, seal(key, text) + text, db=self._tables["scores"])

    def add_key(self, user: str, key_hash: bytes) -> None:
        """Notes that an API key with this SHA-256 belongs to a user.

        Raises:
            InputError: there is no such user.
        """
        with self._writing() as txn:
            place_of(txn, self._tables, user)
            name = user_key(user)
            txn.put(key_hash, seal(key_hash, name) + name, db=self._tables["keys"])

    def drop_keys(self, user: str) -> int:
        """Revokes every API key of a user; how many there were."""
        with self._writing() as txn:
            name = user_key(user)
            cursor = txn.cursor(db=self._tables["keys"])
            held = [key for key, owner in cursor if owner[SEAL:] == name]
            for key in held:
                txn.delete(key, db=self._tables["keys"])
            return len(held)

    def compact(self) -> tuple[int, int]:
        """Rewrites the rows without gaps, in the order of names; bytes on disk before and after.

        The new file takes the old one's place when it is whole; readers and writers of other
        processes follow it with their next transaction.

        Raises:
            OurFailure: the disk is full; the bank is then as it was.
        """
        new = None
        try:
            with self._writing() as txn:
                old = Path(self._file.shared.env.path())
                compaction.sweep(self.path, kept=old)
                new = compaction.next_file(old)
                compaction.copy(txn, self._file.shared, new, self.codec.row_bytes)
                before, after = bytes_on_disk(old), bytes_on_disk(new)
                # The manifest names the new file only once this is committed: it is what readers
                # of the old one look up for, and what the next writer goes over by.
                txn.put(MOVED, new.name.encode(), db=self._tables["facts"])
        except BaseException:
            if new:
                self._discard(new)
            raise
        with self._writing():
            return before, after

    # ---- inside

    def _discard(self, new: Path) -> None:
        """Removes a new file, unless it was committed after all: the next writer, which may have
        waited for just that, has then gone over to it."""
        with suppress(AdapterbotError), self._transaction():
            if Path(self._file.shared.env.path()).name != new.name:
                compaction.unlink(new)

    @property
    def _tables(self) -> Tables:
        """Those of the transaction that writes: while it lasts, nobody moves the file."""
        return self._file.shared.db

    @contextmanager
    def _put(self, txn: lmdb.Transaction, made: Made, *, replace: bool) -> Iterator[None]:
        """Puts a batch; its rows come while the last of them are being made, and are on the disk
        when this has ended. Meanwhile the next batch may be made."""
        keys = made.keys
        cursor = txn.cursor(db=self._tables["users"])
        # Behind all others they are new, and fill their pages; else a page that overflows is split.
        behind = bool(keys) and (not cursor.last() or min(keys) > bytes(cursor.key()))
        found = [] if behind else cursor.getmulti(keys)
        known = {bytes(key): Place.unpack(held) for key, held in found}
        if known and not replace:
            user = next(iter(known)).decode()
            raise InputError("is in the bank already", field=user[:80], fix="use --replace")
        state = state_of(txn, self._tables)
        first, end = state.next_slot, state.next_slot + len(keys)
        if end > 2**32:
            raise InputError("has no slot left of 2³²", file=str(self.path), fix="compact the bank")
        at, seals = 0, []
        with self._file.shared.rows.appended(first * self.codec.row_bytes) as append:
            for coming in made.parts:
                seals.append(coming.result())
                part = slice(at, at + len(seals[-1]))
                append(made.raw[part])
                at = part.stop
            marks = np.concatenate(seals)
            numbers = self._source_numbers(txn, made.sources)
            records = packed(marks, np.arange(first, end), made.created, numbers)
            items = zip(keys, records, strict=True)
            cursor.putmulti(items if made.rising else sorted(items), append=behind)
            for key in known:
                txn.delete(key, db=self._tables["scores"])
            total = state.total - sum(place.number for place in known.values()) + summed(marks)
            users_now = state.users + len(keys) - len(known)
            self._set(txn, State(end, users_now, total % MODULUS))
            # Not before: putting small rows and making them would wait for each other.
            yield

    def _set(self, txn: lmdb.Transaction, state: State) -> None:
        txn.put(b"state", state.packed(), db=self._tables["facts"])

    def _source_numbers(
        self, txn: lmdb.Transaction, texts: bytes | list[bytes]
    ) -> int | NDArray[np.int64]:
        if isinstance(texts, bytes):
            return self._source_number(txn, texts)
        numbers = {text: self._source_number(txn, text) for text in dict.fromkeys(texts)}
        return np.array([numbers[text] for text in texts], np.int64)

    def _source_number(self, txn: lmdb.Transaction, text: bytes) -> int:
        if not text:
            return 0
        sources = self._tables["sources"]
        known = txn.get(b"t" + text, db=sources)
        if known is not None:
            return int(NUMBER.unpack(known)[0])
        number = txn.stat(sources)["entries"] // 2 + 1
        txn.put(b"t" + text, NUMBER.pack(number), db=sources)
        txn.put(b"n" + NUMBER.pack(number), text, db=sources)
        return int(number)

    @contextmanager
    def _writing(self) -> Iterator[lmdb.Transaction]:
        """A transaction that no power cut undoes once it has ended."""
        with self._transaction() as txn:
            yield txn
        self._sync()

    def _sync(self) -> None:
        try:
            with self._opening:  # nor does a reader that follows a compaction close it
                self._file.shared.env.sync(True)
        except lmdb.Error as error:
            raise atomic.not_written(self.path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        while True:
            file = self._file
            try:
                txn = file.shared.env.begin(write=True)
            except lmdb.ReadonlyError as error:
                raise not_writable(self.path) from error
            # The lock is ours; did the file move while we waited for it?
            try:
                if self._current() == file.stamp and not self._move(txn):
                    break
            except DAMAGE as error:
                txn.abort()
                raise damaged(self.path, error) from error
            except lmdb.Error as error:
                txn.abort()
                raise atomic.not_written(self.path, error) from error
            except BaseException:
                txn.abort()
                raise
            txn.abort()
            self._reopen(file)
        try:
            yield txn
            txn.commit()
        except lmdb.MapFullError as error:
            raise OurFailure(f"{self.path} is full", fix="split the bank") from error
        except DAMAGE as error:
            raise damaged(self.path, error) from error
        except (lmdb.Error, OSError) as error:
            raise atomic.not_written(self.path, error) from error
        finally:
            txn.abort()

    def _move(self, txn: lmdb.Transaction) -> bool:
        """Ends a compaction that has committed its new file: whether there was one.

        Without that file, which a power cut may have cost, the old one is all there is, and no
        longer says that it moves.
        """
        moved = txn.get(MOVED, db=self._tables["facts"])
        if moved is None:
            return False
        rows = bytes(moved).decode()
        if compaction.whole(self.path, rows):
            to = self.manifest.model_copy(update={"rows": rows})
            atomic.write_text(self.path / MANIFEST, dump_manifest(to))
            compaction.unlink(Path(self._file.shared.env.path()))
        else:
            txn.delete(MOVED, db=self._tables["facts"])
            txn.commit()
        return True


def create(
    path: Path, manifest: Manifest, keep: Callable[[Path], object] = lambda _: None
) -> BankWriter:
    """A new, empty bank in directory `path`, opened for writing. Of several at once one succeeds.

    Args:
        keep: writes what the bank keeps beside its rows, given the directory.

    Raises:
        InputError: there is something already, or it cannot be written.
    """
    if path.is_symlink() or (there.exists(path) and not there.is_dir(path)):
        raise _exists(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("cannot be written", file=str(path), fix="choose another place") from error
    with _alone(path):
        if there.exists(path / MANIFEST):
            raise _exists(path)
        keep(path)
        compaction.unlink(path / manifest.rows)
        made = acquire(path / manifest.rows, make=True)
        # The manifest last: without it the directory is not a bank yet.
        atomic.write_text(path / MANIFEST, dump_manifest(manifest))
        release(made)
    return BankWriter(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside, nobody else makes a bank in this folder; others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _exists(path: Path) -> InputError:
    return InputError("exists already", file=str(path), fix="name another place, or remove it")
