"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from adapterbot.errors import InputError, OurFailure


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader, or a kill at any moment, sees the old or the new.

    Raises:
        InputError: `path` is a directory or a symbolic link, or its folder cannot be written.
        OurFailure: the disk is full or failing; the old file is untouched.
    """
    if path.is_symlink():
        raise InputError("is a symbolic link", file=str(path), fix="name the file itself")
    if path.is_dir():
        raise InputError("is a directory", file=str(path), fix="name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            "cannot be written", file=str(path), fix="choose a folder that you may write to"
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp is private to its owner; a file that others read gets the usual mode.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise OurFailure(
            f"could not be written: {error.strerror}", file=str(path), fix="free some disk space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())
