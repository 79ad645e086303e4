"""Rows packed into blocks of whole pages. (numpy, lmdb)

LMDB gives a value of more than half a page pages of its own: 16 bytes of header, then the value,
then nothing until the page ends. A block holds as many rows as it takes to make that nothing small.
"""

from __future__ import annotations

import struct

import lmdb
import numpy as np

from adapterbot.bank.codec import Bytes

PAGE = 4096
_HEADER = 16
_TARGET = 0.03
_MOST = 64 * 1024
_KEY = struct.Struct(">I")


class Blocks:
    """Which block a slot lies in, and where.

    Attributes:
        per_block: rows in a block: the least number that wastes 3 % or less, in 64 KiB at most.
    """

    def __init__(self, row_bytes: int) -> None:
        self._row = row_bytes
        candidates = range(1, max(1, _MOST // row_bytes) + 1)
        good = (count for count in candidates if self._waste(count) <= _TARGET)
        self.per_block = next(good, min(candidates, key=self._waste))

    def _waste(self, count: int) -> float:
        size = count * self._row
        return ((-(size + _HEADER)) % PAGE + _HEADER) / size

    def place(self, slot: int) -> tuple[bytes, int]:
        """The key of the slot's block, and the byte at which its row starts."""
        block, index = divmod(slot, self.per_block)
        return _KEY.pack(block), index * self._row


def write(
    txn: lmdb.Transaction, rows: lmdb._Database, layout: Blocks, slots: np.ndarray, raw: Bytes
) -> None:
    """Writes rows into their slots; the other rows of a block stay as they are.

    Shapes: `slots` (n,), each once; `raw` (n, row_bytes).
    """
    if (np.diff(slots) < 0).any():
        order = np.argsort(slots)
        slots, raw = slots[order], raw[order]
    per, size = layout.per_block, raw.shape[1]
    numbers = slots // per
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    bounds = [*starts.tolist(), len(slots)]
    flat = raw.reshape(-1).data
    for start, stop, number in zip(bounds, bounds[1:], numbers[starts].tolist(), strict=False):
        key = _KEY.pack(number)
        if stop - start == per:
            txn.put(key, flat[start * size : stop * size], db=rows)
            continue
        held = txn.get(key, bytes(per * size), rows)
        if len(held) != per * size:
            raise lmdb.CorruptedError("a block of rows is cut off")
        block = np.frombuffer(held, np.uint8).reshape(per, size).copy()
        block[slots[start:stop] - per * number] = raw[start:stop]
        txn.put(key, block.data, db=rows)
