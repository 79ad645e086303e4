"""The file of a bank's rows: one behind the other, each in its slot, and only ever longer.

What lies before the next new slot never changes, so whoever reads an older state finds its rows as
they were. What lies behind it is nobody's: a transaction that failed or was killed left it, and the
next one writes over it.

Rows are read, not mapped: behind the end of a mapped file that was cut short, and on a sector that
has gone bad, reading kills the process (SIGBUS).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterbot.bank.codec import Bytes
from adapterbot.bank.failures import damaged, not_writable
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.atomic import not_written


class RowFile:
    """The file, open. Threads and processes may share it; one of them appends at a time."""

    def __init__(self, file: Path, *, writable: bool, make: bool = False) -> None:
        """
        Args:
            file: where it is.
            writable: whether rows may be appended.
            make: whether it is made anew.

        Raises:
            InputError: it is not there, or is a link, or may not be opened.
            OurFailure: it cannot be made, or opened.
        """
        self.file = file
        if not make and (file.is_symlink() or not there.is_file(file)):
            raise InputError("does not exist", file=str(file), fix="restore it from a backup")
        how = os.O_RDWR if writable else os.O_RDONLY
        how |= os.O_CREAT | os.O_EXCL if make else os.O_NOFOLLOW
        try:
            self._handle = os.open(file, how, 0o666)
        except PermissionError as error:
            raise not_writable(file) from error
        except OSError as error:
            raise (not_written if make else damaged)(file, error) from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._handle)

    def read(self, slot: int, into: memoryview) -> None:
        """Fills `into`, which is as long as a row, with the row in `slot`.

        Raises:
            OurFailure: the file ends before it does, or the disk cannot read it.
        """
        at = slot * len(into)
        while True:
            try:
                got = os.preadv(self._handle, (into,), at)
            except OSError as error:
                raise damaged(self.file, error) from error
            if got == len(into):
                return
            if not got:
                raise damaged(self.file, "a row is cut off")
            into, at = into[got:], at + got

    def require(self, size: int) -> None:
        """Checks that what was committed is there.

        Raises:
            OurFailure: the file is shorter than `size` bytes.
        """
        found = os.fstat(self._handle).st_size
        if found < size:
            raise damaged(self.file, f"it has {found:,} of {size:,} bytes")

    @contextmanager
    def appended(self, start: int) -> Iterator[Callable[[Bytes], None]]:
        """What writes rows (n, row_bytes) from byte `start` on, one behind the other; in the end
        they are on the disk, or the file ends at `start`.

        Raises:
            OurFailure: the file is shorter than that.
            OSError: the disk is full or failing.
        """
        self.require(start)
        at = start

        def append(rows: Bytes) -> None:
            nonlocal at
            begun, left = at, rows.reshape(-1).data
            while left:
                put = os.pwrite(self._handle, left, at)
                left, at = left[put:], at + put
            if hasattr(os, "posix_fadvise"):
                # Linux begins to write them to the disk, while the next ones are being made.
                os.posix_fadvise(self._handle, begun, at - begun, os.POSIX_FADV_DONTNEED)

        try:
            yield append
            _on_disk(self._handle)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._handle, start)
            raise


def _on_disk(handle: int) -> None:
    """Waits until all that was written is on the disk itself: macOS has another word for it, and
    its fsync leaves it to the disk when."""
    whole = getattr(fcntl, "F_FULLFSYNC", None)
    if whole is not None:
        fcntl.fcntl(handle, whole)
    else:
        os.fdatasync(handle)
