"""The two files of a bank, one pair of them per process, shared by all who open it. (lmdb)

LMDB wants its file open once in a process.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import lmdb

from adapterbot.bank.failures import damaged, not_writable
from adapterbot.bank.rowfile import RowFile
from adapterbot.errors import OurFailure
from adapterbot.files.atomic import not_written

MAP_BYTES = 1 << 40  # address space, not memory or disk: LMDB's file grows as it is filled
_ROOM = 1 << 20  # for a new file, its lock and its tables, with some to spare
# What may be missing at the end of a sound file: in a thousand random transactions it was one page,
# once. Where nothing can be put in its place, little is believed to be that.
_NEVER_WRITTEN, _UNMENDED = 64 << 12, 4 << 12
DATABASES = (b"users", b"sources", b"scores", b"keys", b"facts")


@dataclass
class Shared:
    """An environment, its tables, the rows that they tell of, and how many hold it."""

    env: lmdb.Environment
    db: dict[str, lmdb._Database]
    rows: RowFile
    holders: int = 1


DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.BadTxnError,  # of which something else was damaged
    struct.error,
    UnicodeDecodeError,
    json.JSONDecodeError,
)
"""What reading raises where a page or a record is not as it was written."""

_open: dict[str, Shared] = {}
_lock = threading.Lock()


def rows_of(file: Path) -> Path:
    """The file of rows that an LMDB file tells of."""
    return file.with_suffix(".bin")


def bytes_on_disk(file: Path) -> int:
    """What an LMDB file and its rows take on disk."""
    return file.stat().st_size + rows_of(file).stat().st_size


def acquire(file: Path, *, make: bool = False) -> Shared:
    """The environment of `file`, opened or shared; `make` makes both files, and the tables.

    Raises:
        InputError: they are there to be read only, and their folder is not; or the rows are not
            there.
        OurFailure: the file is no LMDB file, or cannot be mapped, or the disk is full.
    """
    name = os.path.realpath(file)
    with _lock:
        if name in _open:
            _open[name].holders += 1
            return _open[name]
        if not make:
            _refuse_empty(file)
        with ExitStack() as opened:
            env = opened.enter_context(_opened(file))
            rows = RowFile(rows_of(file), writable=_writable(file), make=make)
            opened.callback(rows.close)
            try:
                if make:
                    with env.begin(write=True) as txn:
                        for table in DATABASES:
                            env.open_db(table, txn)
                    env.sync(True)
                db = {table.decode(): env.open_db(table, create=False) for table in DATABASES}
            except lmdb.ReadersFullError as error:
                raise _crowded(env) from error
            except lmdb.Error as error:
                raise (not_written if make else damaged)(file, error) from error
            opened.pop_all()
        _open[name] = Shared(env, db, rows)
        return _open[name]


def release(shared: Shared) -> None:
    """Gives up one hold; the last closes the file."""
    with _lock:
        shared.holders -= 1
        if shared.holders == 0:
            shared.env.close()
            shared.rows.close()
            for name in [name for name, held in _open.items() if held is shared]:
                del _open[name]


def read_transaction(env: lmdb.Environment) -> lmdb.Transaction:
    """A transaction that reads.

    Raises:
        OurFailure: as many read as may, in all processes together.
    """
    try:
        return env.begin(buffers=True)
    except lmdb.ReadersFullError:
        env.reader_check()  # gives away the places of those who were killed
    try:
        return env.begin(buffers=True)
    except lmdb.ReadersFullError as error:
        raise _crowded(env) from error


def _crowded(env: lmdb.Environment) -> OurFailure:
    return OurFailure(
        f"{env.path()} is being read by {env.max_readers()} at once, which are all that may",
        fix="try again when some of them have ended",
    )


def _opened(file: Path) -> lmdb.Environment:
    # A reader takes part in the lock too, so that the writer does not reuse the pages that it
    # reads; on a read-only disk there is no writer.
    writable = _writable(file)
    # The lock is a file that is mapped and filled: where the disk has no page for it, the process
    # is killed (SIGBUS).
    if writable and not Path(f"{file}-lock").exists():
        free = shutil.disk_usage(file.parent).free
        if free < _ROOM:
            raise not_written(file, f"the disk has {free:,} bytes left")
    try:
        env = lmdb.open(
            str(file),
            subdir=False,
            map_size=MAP_BYTES,
            max_dbs=len(DATABASES),
            readonly=not writable,
            lock=writable,
            # A random row is one page: what lies behind it is somebody else's.
            readahead=False,
            # A transaction is on the disk with the next one, or once `sync` is called.
            metasync=False,
        )
        if writable:
            env.reader_check()  # who was killed while reading keeps pages from being used again
        _mind_the_end(env, file, writable=writable)
    except lmdb.ReadonlyError as error:
        raise not_writable(file) from error
    except lmdb.MemoryError as error:
        raise OurFailure(
            f"{file} cannot be mapped: this process is denied {MAP_BYTES >> 40} TiB of addresses",
            fix="lift the limit: `ulimit -v unlimited`, or that of the batch system",
        ) from error
    except (lmdb.Error, OSError) as error:
        raise damaged(file, error) from error
    return env


def _writable(file: Path) -> bool:
    return os.access(file.parent, os.W_OK)


def _refuse_empty(file: Path) -> None:
    """LMDB would make a new file of it, and of one that was removed this moment."""
    try:
        empty = file.stat().st_size == 0
    except OSError as error:
        raise damaged(file, error) from error
    if empty:
        raise damaged(file, "it is empty")


def _mind_the_end(env: lmdb.Environment, file: Path, *, writable: bool) -> None:
    """Has pages that were cut off be pages of zeros, which LMDB tells from its own: to read one
    that lies behind the end of the file kills the process (SIGBUS).

    A file may be short and sound, since a page that was freed before it was written never is.

    Raises:
        OurFailure: too much is missing to be that.
    """
    whole = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if file.stat().st_size >= whole:
        return
    # Nobody else lengthens it meanwhile; where nobody may write, nobody does.
    with env.begin(write=writable):
        size = file.stat().st_size
        lost = whole > size + (_NEVER_WRITTEN if writable else _UNMENDED)
        if writable and not lost:
            os.truncate(file, max(size, whole))
    if lost:
        env.close()
        raise damaged(file, f"it has {size:,} of {whole:,} bytes")
