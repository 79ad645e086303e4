"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.files import there

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_LONGEST = 200
# Read once: to read it is to change it for a moment, for the other threads as well.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader, or a kill at any moment, sees the old or the new.
    Once this has returned, no power cut brings back the old.

    Raises:
        InputError: `path` is a directory, a symbolic link or a device, or its folder cannot be
            written.
        OurFailure: the disk is full or failing; the old file is untouched.
    """
    write_all({path: content})


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """As `write_bytes`, of what follows one another: no more than a part is held in memory.

    Raises:
        InputError, OurFailure: as `write_bytes`; and whatever `parts` raises, the old file being
            untouched.
    """
    _write_all({path: parts})


def write_all(files: Mapping[Path, bytes]) -> None:
    """As `write_bytes` for each of several files, once all of them are on the disk: what can go
    wrong goes wrong before the first is replaced.

    Raises:
        InputError, OurFailure: as `write_bytes`; no file was touched.
    """
    _write_all({path: (content,) for path, content in files.items()})


def _write_all(files: Mapping[Path, Iterable[bytes | memoryview]]) -> None:
    staged: dict[Path, Path] = {}
    try:
        for path, parts in files.items():
            staged[path] = temporary(path)
            _fill(staged[path], path, parts)
        for path, filled in staged.items():
            try:
                filled.replace(path)
            except OSError as error:
                raise not_written(path, error) from error
        for folder in {path.parent for path in staged}:
            keep_entries(folder)
    finally:
        for filled in staged.values():
            filled.unlink(missing_ok=True)


def try_file(path: Path, *, field: str | None = None) -> None:
    """Checks that a file can be written, and makes no more than its folder: a failure is then
    reported before the work and not after it.

    Args:
        field: the option that names it, for an error to say.

    Raises:
        InputError, OurFailure: as `write_bytes`.
    """
    temporary(path, field=field).unlink()


def try_folder(folder: Path, *, field: str | None = None) -> None:
    """As `try_file`, that a folder can be made and written to; leaves nothing behind.

    Raises:
        InputError, OurFailure: as `write_bytes`.
    """
    try:
        nearest = next(one for one in (folder, *folder.absolute().parents) if there.exists(one))
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _refused(folder, error, field) from error


def temporary(path: Path, *, shown: Path | None = None, field: str | None = None) -> Path:
    """An empty file beside `path`, to be filled and to replace it: so nothing is moved between file
    systems.

    Args:
        shown: how errors name it; `path` itself when not given.
        field: the option that names it, for an error to say.

    Raises:
        InputError, OurFailure: as `write_bytes`.
    """
    named = {"file": str(shown or path), "field": field}
    try:
        if there.is_symlink(path):
            raise InputError("is a symbolic link", **named, fix="name the file itself")
        if there.is_dir(path):
            raise InputError("is a directory", **named, fix="name a file")
        # Replacing /dev/null by a file would take it away from everybody.
        if there.exists(path) and not there.is_file(path):
            raise InputError("is a device or a pipe", **named, fix="name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _refused(shown or path, error, field) from error
    os.close(handle)
    return Path(made)


def _refused(path: Path, error: OSError, field: str | None) -> InputError | OurFailure:
    if error.errno in _FULL:
        return not_written(path, error)
    name = str(path)
    return InputError(
        f"cannot be written: {error.strerror}",
        file=name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…",
        field=field,
        fix="choose a folder that you may write to",
    )


def _fill(filled: Path, path: Path, parts: Iterable[bytes | memoryview]) -> None:
    try:
        with filled.open("wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp is private to its owner; a file that others read gets the usual mode.
        filled.chmod(0o666 & ~_UMASK)
    except OSError as error:
        raise not_written(path, error) from error


def keep_entries(folder: Path) -> None:
    """Syncs a folder, where its file system allows that: a power cut could undo a rename in it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def not_written(path: Path | str, why: object) -> OurFailure:
    """The failure of a disk that takes no more; `why` is an error of it, or words."""
    said = why.strerror if isinstance(why, OSError) else why
    return OurFailure(f"could not be written: {said}", file=str(path), fix="free some disk space")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())
