"""The error for a machine on which no temporary file can be written."""

from __future__ import annotations

import errno
import os

from adapterbot.errors import OurFailure


def not_written(error: OSError) -> OurFailure:
    """The failure of a temporary file that could not be made or filled."""
    return OurFailure(
        f"no temporary file can be written: {error.strerror}",
        fix="make room there, or name another folder: TMPDIR",
    )


def nowhere(error: OSError) -> bool:
    """Whether `tempfile` raised this because it found no folder to write in: an ENOENT that names
    no file, with a message of its own."""
    said = (error.errno, error.filename) == (errno.ENOENT, None)
    return said and error.strerror != os.strerror(errno.ENOENT)
