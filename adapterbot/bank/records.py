"""The records of a bank's file: how they are packed, and sealed against silent change. (stdlib)

The tables themselves are listed in `store`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SEAL = 16
MODULUS = 1 << (8 * SEAL)
NUMBER = struct.Struct(">I")
_SLOT = struct.Struct("<I")
_ENTRY = struct.Struct(f"<{SEAL}sIQI")
_STATE = struct.Struct(f"<IQ{SEAL}s")


pack = _ENTRY.pack


class Place(NamedTuple):
    """A user's record: its seal, the row's slot, when it was written (ms), and its source."""

    seal: bytes
    slot: int
    created: int
    source: int

    def packed(self) -> bytes:
        """As `users` holds it."""
        return pack(*self)

    @classmethod
    def unpack(cls, held: bytes | memoryview) -> Place:
        """As `packed` wrote it."""
        return cls(*_ENTRY.unpack(held))

    @property
    def number(self) -> int:
        """The seal as what it adds to the sum of all."""
        return int.from_bytes(self.seal, "little")


def slot_of(held: bytes | memoryview) -> int:
    """The slot in a user's record."""
    return int(_SLOT.unpack_from(held, SEAL)[0])


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
    """Of the whole store: the next new slot, how many users, the sum of their seals."""

    next_slot: int = 0
    users: int = 0
    total: int = 0

    def packed(self) -> bytes:
        """As `facts` holds it."""
        body = _STATE.pack(self.next_slot, self.users, self.total.to_bytes(SEAL, "little"))
        return seal(b"state", body) + body

    @classmethod
    def unpack(cls, held: bytes) -> State:
        """As `packed` wrote it."""
        next_slot, users, total = _STATE.unpack(held[SEAL:])
        return cls(next_slot, users, int.from_bytes(total, "little"))


def seal(key: bytes, body: bytes) -> bytes:
    """The digest of a record."""
    return hashlib.blake2b(len(key).to_bytes(2, "little") + key + body, digest_size=SEAL).digest()


def row_seal(key: bytes, created: int, source: bytes, row: bytes | memoryview) -> bytes:
    """The digest of a user's row and of all that is said about it but where it lies."""
    (made,) = row_seals([key], created, source, row)
    return made


def row_seals(
    keys: Sequence[bytes], created: int, source: bytes, rows: bytes | memoryview
) -> list[bytes]:
    """`row_seal` of each key, with its row of `rows`, which are of one size.

    What comes before `key` has a known length, so no two records are the same bytes.
    """
    size = len(rows) // len(keys) if keys else 1
    said = struct.pack("<QH", created, len(source)) + source
    seals = []
    for start, key in zip(range(0, len(rows), size), keys, strict=True):
        digest = hashlib.blake2b(rows[start : start + size], digest_size=SEAL)
        digest.update(said + key)
        seals.append(digest.digest())
    return seals
