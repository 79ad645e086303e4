"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from adapterbot.errors import InputError, OurFailure

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_LONGEST = 200
# Read once: to read it is to change it for a moment, for the other threads as well.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader, or a kill at any moment, sees the old or the new.

    Raises:
        InputError: `path` is a directory, a symbolic link or a device, or its folder cannot be
            written.
        OurFailure: the disk is full or failing; the old file is untouched.
    """
    write_all({path: content})


def write_all(files: Mapping[Path, bytes]) -> None:
    """As `write_bytes` for each of several files, once all of them are on the disk: what can go
    wrong goes wrong before the first is replaced.

    Raises:
        InputError, OurFailure: as `write_bytes`; no file was touched.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            staged[path] = _temporary(path)
            _fill(staged[path], path, content)
        for path, temporary in staged.items():
            try:
                temporary.replace(path)
            except OSError as error:
                raise not_written(path, error) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def try_folder(folder: Path) -> None:
    """Checks that a folder can be made and written to, and leaves nothing behind: a failure is then
    reported before the work and not after it.

    Raises:
        InputError, OurFailure: as `write_bytes`.
    """
    try:
        nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    except OSError as error:
        raise _refused(folder, error) from error
    _temporary(nearest / "written", shown=folder).unlink()


def _temporary(path: Path, *, shown: Path | None = None) -> Path:
    """An empty file beside `path`, so that replacing it moves nothing between file systems."""
    name = str(shown or path)
    try:
        if path.is_symlink():
            raise InputError("is a symbolic link", file=name, fix="name the file itself")
        if path.is_dir():
            raise InputError("is a directory", file=name, fix="name a file")
        # Replacing /dev/null by a file would take it away from everybody.
        if path.exists() and not path.is_file():
            raise InputError("is a device or a pipe", file=name, fix="name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _refused(shown or path, error) from error
    os.close(handle)
    return Path(made)


def _refused(path: Path, error: OSError) -> InputError | OurFailure:
    if error.errno in _FULL:
        return not_written(path, error)
    name = str(path)
    return InputError(
        f"cannot be written: {error.strerror}",
        file=name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…",
        fix="choose a folder that you may write to",
    )


def _fill(temporary: Path, path: Path, content: bytes) -> None:
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp is private to its owner; a file that others read gets the usual mode.
        temporary.chmod(0o666 & ~_UMASK)
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path | str, why: object) -> OurFailure:
    """The failure of a disk that takes no more; `why` is an error of it, or words."""
    said = why.strerror if isinstance(why, OSError) else why
    return OurFailure(f"could not be written: {said}", file=str(path), fix="free some disk space")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())
