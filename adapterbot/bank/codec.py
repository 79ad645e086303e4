"""A row's numbers as bytes: fp32, fp16, bf16, or int8 with a scale for each vector. (numpy)

Little-endian, whatever the machine. A row is [scales, int8 only][numbers][choices].
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bank.manifest import Manifest, VbLoraLayout
from adapterbot.errors import InputError

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
_ITEM = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
BYTE = np.dtype(np.uint8)
_FP32 = np.dtype("<f4")
_NO_CHOICES = np.empty((2**32, 0), np.int64)  # of as many rows as a bank holds, in no memory
_LEVELS = 127
_INFINITY = 0x7C00  # of fp16, behind which lie its NaNs; with the sign, 0x8000 more
# Numbers up to which torch starts no threads of its own: there are enough already.
_SERIAL = 30_000
# The least magnitude that becomes infinity: half a step beyond the type's largest number.
_TOO_LARGE = {
    "fp32": np.float32(np.inf),
    "fp16": np.float32(65520),
    "bf16": np.uint32(0x7F7F8000).view(np.float32),
    "int8": np.float32(np.inf),
}


@dataclass(slots=True)  # freezing it costs as much as a read from the file
class Rows:
    """Decoded rows. Shapes: `values` (n, floats) fp32; `choices` (n, choices) int64."""

    values: Floats
    choices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def at(self, which: slice | Sequence[int]) -> Rows:
        """Some of them."""
        return Rows(self.values[which], self.choices[which])


def plain(values: Any) -> Rows:
    """Rows that have numbers only."""
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    return Rows(matrix, np.zeros((len(matrix), 0), np.int64))


def together(parts: Sequence[Rows]) -> Rows:
    """Rows of several, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([rows.values for rows in parts]),
        np.concatenate([rows.choices for rows in parts]),
    )


class Codec:
    """How the rows of one bank are written.

    Attributes:
        row_bytes: bytes of a row.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._dtype = manifest.dtype
        self._sizes = np.array(manifest.layout.vectors)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self.floats = manifest.floats
        self.choices = manifest.layout.choices
        self._limit = 0
        self._choice = np.dtype("<u2")
        if isinstance(manifest.layout, VbLoraLayout):
            self._limit = manifest.layout.bank_size
            self._choice = np.dtype("<u2" if self._limit <= 2**16 else "<u4")
        scales = 4 * len(self._sizes) if self._dtype == "int8" else 0
        self._numbers = (scales, scales + self.floats * _ITEM[self._dtype])
        self.row_bytes = self._numbers[1] + self.choices * self._choice.itemsize

    def encode(self, rows: Rows, users: Any = None, *, out: Bytes | None = None) -> Bytes:
        """(n, row_bytes) bytes.

        Args:
            rows: what to write.
            users: their names, for errors.
            out: an array of that shape to write to. By default it is a new one, or the bytes of
                `rows` themselves.

        Raises:
            InputError: a row has another length, or a number that its type cannot hold.
        """
        self._check_shape(rows)
        if self._dtype != "fp16":
            self._check_values(rows, users)
        self._check_choices(rows, users)
        if out is None and self._dtype == "fp32" and not self.choices:
            return np.ascontiguousarray(rows.values, "<f4").view(np.uint8)
        raw = np.empty((len(rows), self.row_bytes), np.uint8) if out is None else out
        start, stop = self._numbers
        numbers = raw[:, start:stop]
        if self._dtype == "int8":
            scales = np.maximum.reduceat(np.abs(rows.values), self._starts, axis=1) / _LEVELS
            # A subnormal scale would divide to more levels than there are.
            scales[scales < np.finfo(np.float32).tiny] = 0.0
            spread = np.repeat(scales, self._sizes, axis=1)
            levels = np.divide(rows.values, spread, out=np.zeros_like(spread), where=spread > 0)
            raw[:, :start] = scales.astype("<f4").view(np.uint8)
            numbers[...] = np.rint(levels).astype(np.int8).view(np.uint8)
        elif self._dtype == "fp32":
            numbers.view("<f4")[...] = rows.values
        elif (torch := sys.modules.get("torch")) and rows.values.flags.writeable:
            _narrow(torch, self._dtype, rows.values, numbers.view("<i2"))
        elif self._dtype == "bf16":
            numbers.view("<u2")[...] = _rounded_to_bf16(rows.values)
        else:
            with np.errstate(over="ignore"):
                numbers.view("<f2")[...] = rows.values
        # Half the bytes to look at: whatever is refused has become infinity or NaN. As signed
        # numbers the positive ones are the greatest, as unsigned ones the negative.
        if self._dtype == "fp16" and (
            numbers.view("<i2").max(initial=0) >= _INFINITY
            or numbers.view("<u2").max(initial=0) >= 0x8000 + _INFINITY
        ):
            self._check_values(rows, users)
        if self.choices:
            raw[:, stop:] = np.ascontiguousarray(rows.choices, dtype=self._choice).view(np.uint8)
        return raw

    def check(self, rows: Rows, users: Any = None) -> None:
        """Refuses numbers that are not finite or that the type cannot hold, and choices of vectors
        that are not there.

        Raises:
            InputError: with the first user.
        """
        self._check_values(rows, users)
        self._check_choices(rows, users)

    def _check_values(self, rows: Rows, users: Any) -> None:
        values = rows.values
        most = max(values.max(initial=0.0), -values.min(initial=0.0))
        # A NaN is no less than anything, and whoever meets it is one.
        if not most < _TOO_LARGE[self._dtype]:
            finite = np.isfinite(values)
            if not finite.all():
                raise self._refused(users, int(np.argmin(finite.all(1))), "holds NaN or infinity")
            bad = int(np.argmax((np.abs(values) >= _TOO_LARGE[self._dtype]).any(1)))
            raise self._refused(users, bad, f"has a number too large for {self._dtype}")

    def _check_choices(self, rows: Rows, users: Any) -> None:
        wrong = ((rows.choices < 0) | (rows.choices >= self._limit)).any(1)
        if wrong.any():
            problem = "chooses a vector that is not there"
            raise self._refused(users, int(np.argmax(wrong)), problem)

    def decode(self, raw: Bytes) -> Rows:
        """What `encode` was given, as far as the type holds it. `raw` is (n, row_bytes)."""
        start, stop = self._numbers
        if self._dtype == "fp32" and not self.choices:
            return Rows(raw.view(_FP32), _NO_CHOICES[: len(raw)])
        numbers = np.ascontiguousarray(raw[:, start:stop])
        if self._dtype == "int8":
            scales = np.ascontiguousarray(raw[:, :start]).view("<f4")
            values = numbers.view(np.int8) * np.repeat(scales, self._sizes, axis=1)
        elif self._dtype == "bf16":
            values = (numbers.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = numbers.view("<f4" if self._dtype == "fp32" else "<f2")
        choices = np.ascontiguousarray(raw[:, stop:]).view(self._choice).astype(np.int64)
        return Rows(values.astype(np.float32, copy=False), choices)

    def _check_shape(self, rows: Rows) -> None:
        if rows.values.ndim != 2 or rows.values.shape[1] != self.floats:
            raise InputError(
                f"has {rows.values.shape[-1]} numbers, this bank's rows have {self.floats}",
                field="vector",
                fix="use vectors that were trained for this bank's base, modules and rank",
            )
        if rows.choices.shape != (len(rows), self.choices):
            raise InputError(
                f"has {rows.choices.shape[-1]} choices, this bank's rows have {self.choices}",
                field="vector",
                fix="use an adapter of the same kind as the bank",
            )

    @staticmethod
    def _refused(users: Any, index: int, problem: str) -> InputError:
        return InputError(
            problem,
            field=str(users[index])[:80] if users is not None else f"row {index}",
            fix="leave this user out, or train again",
        )


def _narrow(torch: Any, dtype: str, values: Floats, halves: NDArray[np.int16]) -> None:
    """Rounds half to even by the processor's own instruction, which numpy does not use: ten times
    as fast. Nothing is worth importing torch for, and where it is there it gives the same bits.

    Shapes: `values` and `halves` (n, floats).
    """
    made = torch.from_numpy(halves).view(torch.float16 if dtype == "fp16" else torch.bfloat16)
    given = torch.from_numpy(values)
    if made.is_contiguous() and given.is_contiguous():
        made, given = made.view(1, -1), given.view(1, -1)
    step = max(1, _SERIAL // max(1, given.shape[1]))

    def pieces(whole: Any) -> list[Any]:
        return [piece for some in whole.split(step) for piece in some.split(_SERIAL, 1)]

    # All in one call: else threads that narrow wait for each other between any two pieces.
    torch._foreach_copy_(pieces(made), pieces(given))


def _rounded_to_bf16(values: Floats) -> NDArray[np.uint32]:
    """The upper halves of fp32's bits, rounded half to even: add half of the last kept bit, less
    one if that bit is even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= 1
    rounded += bits
    rounded += 0x7FFF
    rounded >>= 16
    return rounded
