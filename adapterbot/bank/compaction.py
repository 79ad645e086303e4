"""The files that compacting makes: rows without gaps, in the order of names. (numpy, lmdb)

When the bank goes over to new ones is `writer`'s to say.
"""

from __future__ import annotations

import re
from pathlib import Path

import lmdb
import numpy as np

from adapterbot.bank.codec import BYTE
from adapterbot.bank.environment import DAMAGE, Shared, acquire, release, rows_of
from adapterbot.bank.opened import state_of
from adapterbot.bank.records import Place, State
from adapterbot.files import atomic, there

_FILE = re.compile(r"rows-[0-9]+\.mdb")
# Bytes of rows that are held in memory while they are copied.
_AT_ONCE = 4 << 20


def next_file(old: Path) -> Path:
    """The LMDB file that takes another's place."""
    return old.with_name(f"rows-{int(old.stem.removeprefix('rows-')) + 1}.mdb")


def whole(folder: Path, name: str) -> bool:
    """Whether there is an LMDB file of that name, and its rows."""
    file = folder / name
    return _FILE.fullmatch(name) is not None and all(map(there.is_file, (file, rows_of(file))))


def unlink(file: Path) -> None:
    """Removes an LMDB file, its rows and its lock, where they are."""
    for one in (file, rows_of(file), file.with_name(f"{file.name}-lock")):
        one.unlink(missing_ok=True)


def sweep(folder: Path, *, kept: Path) -> None:
    """Removes what compactions left that were killed; whoever writes holds the only one."""
    for file in folder.iterdir():
        owner = file.with_suffix(".mdb") if file.suffix == ".bin" else file
        name = owner.name.removesuffix("-lock")
        if name != kept.name and _FILE.fullmatch(name):
            file.unlink(missing_ok=True)


def copy(txn: lmdb.Transaction, old: Shared, new: Path, row_bytes: int) -> None:
    """Writes a bank as a transaction sees it to new files.

    Raises:
        OurFailure: the disk is full, or a row is missing.
    """
    fresh = acquire(new, make=True)
    try:
        with fresh.env.begin(write=True) as target:
            _copy(txn, old, target, fresh, row_bytes)
        fresh.env.sync(True)
    except DAMAGE:
        raise  # of the old ones
    except (lmdb.Error, OSError) as error:
        raise atomic.not_written(new, error) from error
    finally:
        release(fresh)


def _copy(
    txn: lmdb.Transaction, old: Shared, target: lmdb.Transaction, fresh: Shared, row_bytes: int
) -> None:
    db = fresh.db
    for name in ("sources", "scores", "keys"):
        for key, value in txn.cursor(db=old.db[name]):
            target.put(key, value, db=db[name], append=True)
    pending = np.empty((max(1, _AT_ONCE // row_bytes), row_bytes), BYTE)
    count = at = 0
    with fresh.rows.appended(0) as append:
        for key, value in txn.cursor(db=old.db["users"]):
            place = Place.unpack(value)
            old.rows.read(place.slot, pending[at].data)
            target.put(key, place._replace(slot=count).packed(), db=db["users"], append=True)
            count, at = count + 1, at + 1
            if at == len(pending):
                append(pending)
                at = 0
        append(pending[:at])
    state = state_of(txn, old.db)
    target.put(b"state", State(count, state.users, state.total).packed(), db=db["facts"])
