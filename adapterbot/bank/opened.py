"""An open bank: the files that its manifest names, and snapshots of them. (lmdb)

Compacting makes new files, which every reader follows with its next snapshot. Handles of one file
are no good in another, so a snapshot brings its own; and files are let go of when the last snapshot
of them has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from adapterbot.bank.codec import Codec
from adapterbot.bank.environment import (
    DAMAGE,
    Shared,
    acquire,
    bytes_on_disk,
    read_transaction,
    release,
)
from adapterbot.bank.failures import damaged
from adapterbot.bank.manifest import MANIFEST, read_manifest
from adapterbot.bank.records import State
from adapterbot.bank.rowfile import RowFile
from adapterbot.errors import InputError, OurFailure
from adapterbot.files import there

Tables = Mapping[str, Any]
"""LMDB's handles, by name."""

MOVED = b"moved"
"""In `facts`: the file that compacting has made of this one, and that the next writer goes to."""


def state_of(txn: lmdb.Transaction, db: Tables) -> State:
    """What a store says of itself as a whole."""
    held = txn.get(b"state", db=db["facts"])
    return State() if held is None else State.unpack(bytes(held))


def _require(txn: lmdb.Transaction, db: Tables, rows: RowFile, row_bytes: int) -> None:
    rows.require(state_of(txn, db).next_slot * row_bytes)


@dataclass(eq=False)
class _File:
    """The files of a bank as it has them open, and the snapshots of them that are being read."""

    shared: Shared
    stamp: tuple[int, int]
    seen: int = -1
    snapshots: set[Snapshot] = field(default_factory=set)


class Snapshot:
    """What was committed when it began. A context manager: the transaction, and its tables."""

    __slots__ = ("_bank", "_file", "_txn")

    def __init__(self, bank: OpenBank) -> None:
        self._bank = bank

    def __enter__(self) -> tuple[lmdb.Transaction, Tables]:
        self._file, self._txn = self._bank.begun(self)
        return self._txn, self._file.shared.db

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._txn.abort()
        self._bank.ended(self, self._file)
        if error is not None and isinstance(error, DAMAGE):
            raise damaged(self._bank.path, error) from error

    @property
    def rows(self) -> RowFile:
        """The rows that the tables tell of."""
        return self._file.shared.rows

    @property
    def stamp(self) -> tuple[int, int]:
        """The stamp of the manifest that names its file."""
        return self._file.stamp


class OpenBank:
    """The files of a bank, as one reader or writer follows them.

    Attributes:
        path: the bank's directory.
        manifest: what its rows are.
        codec: how they are written.
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
        file = self.path / self.manifest.rows
        if file.is_symlink() or not there.is_file(file):
            raise InputError("does not exist", file=str(file), fix="restore it from a backup")
        shared = acquire(file)
        try:
            with read_transaction(shared.env) as txn:
                _require(txn, shared.db, shared.rows, self.codec.row_bytes)
        except DAMAGE as error:
            release(shared)
            raise damaged(self.path, error) from error
        except OurFailure:
            release(shared)
            raise
        return _File(shared, stamp)

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

    @property
    def version(self) -> int:
        """A number that changes with every commit, whoever commits."""
        snapshot = self.reading()
        with snapshot as (txn, _):
            return hash((snapshot.stamp, txn.id()))

    @property
    def file_bytes(self) -> int:
        """Bytes on disk of the rows, and of what tells where they lie.

        Raises:
            OurFailure: a file of them is gone.
        """
        snapshot = self.reading()
        while True:
            with snapshot:
                try:
                    return bytes_on_disk(self.path / self.manifest.rows)
                except OSError as error:
                    # Unless they were compacted just now, and lie elsewhere.
                    if self._current() == snapshot.stamp:
                        raise damaged(self.path, error) from error

    def require(self) -> None:
        """Checks that the files can be read, and that as many rows are there as were committed.

        Raises:
            OurFailure: not so.
        """
        snapshot = self.reading()
        with snapshot as (txn, tables):
            _require(txn, tables, snapshot.rows, self.codec.row_bytes)

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
            try:
                txn = read_transaction(file.shared.env)
            except OurFailure:
                self.ended(snapshot, file)
                raise
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
