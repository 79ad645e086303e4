"""The records of a bank's file: how they are packed, and sealed against silent change. (numpy,
xxhash)

A seal is XXH3 of 128 bits. It is there to find what a disk or a bug has changed, at the speed of
memory. It need not withstand a forger: whoever can write to the file could seal it anew with any
hash that has no key.

The tables themselves are listed in `store`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from adapterbot.bank.codec import Bytes

Slots = NDArray[np.int64]

SEAL = 16
MODULUS = 1 << (8 * SEAL)
NUMBER = struct.Struct(">I")
ENTRY = struct.Struct(f"<{SEAL}sIQI")
"""A `Place` as `users` holds it; unpacked as it is where a `Place` costs as much as its row."""
_STATE = struct.Struct(f"<IQ{SEAL}s")

_PLACES = np.dtype([("seal", "u1", SEAL), ("slot", "<u4"), ("created", "<u8"), ("source", "<u4")])


class Place(NamedTuple):
    """A user's record: its seal, the row's slot, when it was written (ms), and its source."""

    seal: bytes
    slot: int
    created: int
    source: int

    def packed(self) -> bytes:
        """As `users` holds it."""
        return ENTRY.pack(*self)

    @classmethod
    def unpack(cls, held: bytes | memoryview) -> Place:
        """As `packed` wrote it."""
        return cls(*ENTRY.unpack(held))

    @property
    def number(self) -> int:
        """The seal as what it adds to the sum of all."""
        return int.from_bytes(self.seal, "little")


@dataclass(frozen=True)
class Entry:
    """What is known of one user besides the row. `created` is in seconds since 1970."""

    user: str
    digest: str
    created: float
    source: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class State:
    """The state of the whole store: the next new slot, how many users, the sum of their seals."""

    next_slot: int = 0
    users: int = 0
    total: int = 0

    def packed(self) -> bytes:
        """As `facts` holds it."""
        body = _STATE.pack(self.next_slot, self.users, self.total.to_bytes(SEAL, "little"))
        return seal(b"state", body) + body

    @classmethod
    def unpack(cls, held: bytes) -> State:
        """As `packed` wrote it.

        Raises:
            struct.error: it did not: to write where an altered record says would destroy rows.
        """
        next_slot, users, total = _STATE.unpack(held[SEAL:])
        if seal(b"state", held[SEAL:]) != held[:SEAL]:
            raise struct.error("the record of the whole bank was altered")
        return cls(next_slot, users, int.from_bytes(total, "little"))


def seal(key: bytes, body: bytes) -> bytes:
    """The digest of a record."""
    return xxhash.xxh3_128_digest(len(key).to_bytes(2, "little") + key + body)


def row_seal(key: bytes, created: int, source: bytes, row: bytes | memoryview) -> bytes:
    """The digest of a user's row, and of all that is said about it but where it lies: its seed."""
    return xxhash.xxh3_128_digest(row, xxhash.xxh3_64_intdigest(key, _said(created, source)))


def row_seals(
    keys: Sequence[bytes],
    created: int,
    sources: bytes | Sequence[bytes],
    rows: bytes | memoryview,
) -> Bytes:
    """`row_seal` of each key, with its row of `rows`, which are of one size: (n, SEAL)."""
    size = max(1, len(rows) // len(keys)) if keys else 1
    if isinstance(sources, bytes):
        said = [_said(created, sources)] * len(keys)
    else:
        known = {text: _said(created, text) for text in set(sources)}
        said = [known[text] for text in sources]
    digest, seed = xxhash.xxh3_128_digest, xxhash.xxh3_64_intdigest
    starts = range(0, len(rows), size)
    seals = [
        digest(rows[start : start + size], seed(key, of_all))
        for start, key, of_all in zip(starts, keys, said, strict=True)
    ]
    return np.frombuffer(b"".join(seals), np.uint8).reshape(-1, SEAL)


def _said(created: int, source: bytes) -> int:
    return xxhash.xxh3_64_intdigest(created.to_bytes(8, "little") + source)


def packed(seals: Bytes, slots: Slots, created: int, sources: Slots | int) -> list[bytes]:
    """`Place.packed` of each user. Shapes: seals (n, SEAL), slots and sources (n,)."""
    places = np.empty(len(slots), _PLACES)
    places["seal"], places["slot"] = seals, slots
    places["created"], places["source"] = created, sources
    records: list[bytes] = places.view(f"V{ENTRY.size}").tolist()
    return records


def summed(seals: Bytes) -> int:
    """What seals (n, SEAL) add to the sum of all."""
    words = np.ascontiguousarray(seals).view("<u4").sum(0, dtype=np.uint64).tolist()
    return sum(word << (32 * index) for index, word in enumerate(words))
