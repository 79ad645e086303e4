"""The files of rows that compacting makes: rows without gaps, in the order of names. (numpy, lmdb)

When the bank goes over to a new one is `writer`'s to say.
"""

from __future__ import annotations

import re
from pathlib import Path

import lmdb
import numpy as np

from adapterbot.bank.environment import DAMAGE, Shared, acquire, damaged, release
from adapterbot.bank.opened import Tables
from adapterbot.bank.records import Place, State
from adapterbot.bank.store import BankStore, state_of
from adapterbot.files import atomic

_ROWS = re.compile(r"rows-[0-9]+\.mdb")


def is_rows(name: str) -> bool:
    """Whether a file is one of rows, by its name."""
    return _ROWS.fullmatch(name) is not None


def next_file(old: Path) -> Path:
    """The file that takes another's place."""
    return old.with_name(f"rows-{int(old.stem.removeprefix('rows-')) + 1}.mdb")


def unlink(file: Path) -> None:
    """Removes a file of rows and its lock, where they are."""
    file.unlink(missing_ok=True)
    file.with_name(f"{file.name}-lock").unlink(missing_ok=True)


def sweep(folder: Path, *, kept: Path) -> None:
    """Removes what compactions left that were killed; whoever writes holds the only one."""
    for file in folder.iterdir():
        rows = file.name.removesuffix("-lock")
        if rows != kept.name and is_rows(rows):
            file.unlink(missing_ok=True)


def copy(bank: BankStore, txn: lmdb.Transaction, tables: Tables, new: Path) -> None:
    """Writes a bank as a transaction sees it to a new file.

    Raises:
        OurFailure: the disk is full, or a row is missing.
    """
    fresh = acquire(new, make=True)
    try:
        with fresh.env.begin(write=True) as target:
            _copy(bank, txn, tables, fresh, target)
        fresh.env.sync(True)
    except DAMAGE:
        raise  # of the old one
    except lmdb.Error as error:
        raise atomic.not_written(new, error) from error
    finally:
        release(fresh)


def _copy(
    bank: BankStore,
    txn: lmdb.Transaction,
    tables: Tables,
    fresh: Shared,
    target: lmdb.Transaction,
) -> None:
    db = fresh.db
    for name in ("sources", "scores", "keys"):
        for key, value in txn.cursor(db=tables[name]):
            target.put(key, value, db=db[name], append=True)
    per, size = bank.blocks.per_block, bank.codec.row_bytes
    pending = np.zeros((per, size), np.uint8)
    count = 0
    for key, value in txn.cursor(db=tables["users"]):
        place = Place.unpack(value)
        block, start = bank.blocks.place(place.slot)
        held = txn.get(block, db=tables["rows"])
        if held is None or len(held) < start + size:
            raise damaged(bank.path, "a row is missing")
        pending[count % per] = np.frombuffer(held, np.uint8, size, start)
        target.put(key, place._replace(slot=count).packed(), db=db["users"], append=True)
        count += 1
        if count % per == 0:
            target.put(bank.blocks.place(count - 1)[0], pending.data, db=db["rows"])
    if count % per:
        target.put(bank.blocks.place(count - 1)[0], pending.data, db=db["rows"])
    state = state_of(txn, tables)
    target.put(b"state", State(count, state.users, state.total).packed(), db=db["facts"])
