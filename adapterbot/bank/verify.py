"""Whether a bank's files still say what was written: every record, and that none went missing.

LMDB follows the offsets of a damaged page wherever they lead, out of the file if need be. So the
walk is a process of its own, whose death is a finding too. Findings, not failures: `verify` is
asked whether something is wrong.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb

from adapterbot import beside
from adapterbot.bank.manifest import read_manifest
from adapterbot.bank.opened import Tables, state_of
from adapterbot.bank.records import MODULUS, NUMBER, SEAL, Place, row_seal, seal
from adapterbot.bank.rowfile import RowFile
from adapterbot.bank.store import BankStore
from adapterbot.errors import AdapterbotError, OurFailure

MOST_SHOWN = 100
_SECONDS = 3600
_PAGE = 4096
# Where a meta page keeps the number of the transaction that wrote it: behind a page header of 16
# bytes, magic, version, address, map size and two tables of 48 bytes, and the last page's number.
_TXNID = struct.Struct("<Q")
_TXNID_AT = 16 + 4 + 4 + 8 + 8 + 2 * 48 + 8


def verify(path: Path) -> tuple[str, ...]:
    """What is wrong with the bank in `path`; empty when all is well.

    Raises:
        InputError: it is not a bank.
        OurFailure: the process that walks it could not be started, or did not end.
    """
    read_manifest(path)
    try:
        done = subprocess.run(
            beside.command(__name__, "main", str(path)),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env=beside.environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OurFailure(f"{path} could not be walked: {error}", fix="try again") from error
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else "an error"
        return (f"the file's structure is damaged: reading it ended with {how}",)
    return tuple(json.loads(done.stdout))


def main() -> None:
    """Prints the findings of the bank that the command line names, as a JSON list."""
    found: list[str] = []
    try:
        with BankStore(sys.argv[1]) as store:
            for finding in _findings(store):
                found.append(finding)
                if len(found) == MOST_SHOWN:
                    break
    except AdapterbotError as error:
        found.append(": ".join(part for part in (error.file, error.message) if part))
    sys.stdout.write(json.dumps(found))


def _findings(store: BankStore) -> Iterator[str]:
    yield from _torn(store.path / store.manifest.rows)
    try:
        snapshot = store.reading()
        with snapshot as (txn, db):
            yield from _users(store.codec.row_bytes, snapshot.rows, txn, db)
            yield from _sealed(txn, db)
    except OurFailure as error:
        yield f"the file's structure is damaged: {error.__cause__}"


def _torn(file: Path) -> Iterator[str]:
    """LMDB's two meta pages are written in turn: page 0 by even transactions, page 1 by odd ones.

    A changed number would have LMDB take the older one, and forget the last transaction.
    """
    with file.open("rb") as stream:
        head = stream.read(2 * _PAGE)
    first, second = (_TXNID.unpack_from(head, page * _PAGE + _TXNID_AT)[0] for page in (0, 1))
    if abs(first - second) != 1 or first % 2 or not second % 2:
        yield f"the meta pages name transactions {first} and {second}, which do not follow"


def _users(size: int, rows: RowFile, txn: lmdb.Transaction, db: Tables) -> Iterator[str]:
    state, row = state_of(txn, db), memoryview(bytearray(size))
    sources = {
        NUMBER.unpack(bytes(key)[1:])[0]: bytes(text)
        for key, text in txn.cursor(db=db["sources"])
        if bytes(key[:1]) == b"n"
    }
    count = total = 0
    slots: set[int] = set()
    for key, record in txn.cursor(db=db["users"]):
        place, name = Place.unpack(record), bytes(key)
        shown = name.decode("utf-8", "replace")[:80]
        count, total = count + 1, total + place.number
        if place.slot in slots:
            yield f"{shown}: shares its slot with another user"
        slots.add(place.slot)
        if place.slot >= state.next_slot:
            yield f"{shown}: the row lies where the next one will"
            continue
        try:
            rows.read(place.slot, row)
        except OurFailure as error:
            yield f"{shown}: {error.message}"
            continue
        if row_seal(name, place.created, sources.get(place.source, b""), row) != place.seal:
            yield f"{shown}: the row was altered"
    if (count, total % MODULUS) != (state.users, state.total):
        yield f"{count} users are there, but not the {state.users} that were written"


def _sealed(txn: lmdb.Transaction, db: Tables) -> Iterator[str]:
    for table in ("scores", "keys"):
        for key, value in txn.cursor(db=db[table]):
            if bytes(value[:SEAL]) != seal(bytes(key), bytes(value[SEAL:])):
                yield f"a record of {table} was altered"
