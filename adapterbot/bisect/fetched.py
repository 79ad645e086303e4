"""Directories fetched from elsewhere, kept on disk within a bound.

One folder per key, with a manifest of digests beside the files. A folder is filled under another
name and renamed, so that it is wholly there or not at all; it is locked for as long as somebody
reads it, so that no other process makes room at his cost; and it is hashed before it is handed
out, so that what was damaged or touched is fetched anew. What was used longest ago goes first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterbot.errors import OurFailure
from adapterbot.files.tree import file_sha256

LIMIT = 16 * 1024**3
_FILES, _MANIFEST = "files", "manifest.json"
_NEW, _GONE = "new-", "gone-"
_ABANDONED_SECONDS = 3600.0
_ATTEMPTS = 3


class FetchedDirectories:
    """Safe with several threads and processes, on a file system that has `flock`."""

    def __init__(self, root: Path, limit: int = LIMIT) -> None:
        """
        Args:
            limit: bytes to keep at most; never more than half of what the disk has left for it.
        """
        self._root = root
        self._limit = limit

    @property
    def limit(self) -> int:
        """How many bytes one directory may have at most."""
        place = self._root
        while not place.exists():
            place = place.parent
        kept = sum(size for _, size, _ in self._entries())
        return min(self._limit, (shutil.disk_usage(place).free + kept) // 2)

    @contextmanager
    def opened(self, key: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """The directory of `key` inside, filled when it is not there.

        Args:
            key: whatever tells contents apart; the same key is the same content.
            fill: writes the files into an empty folder that it is given.

        Raises:
            OurFailure: the cache cannot be written.
        """
        entry = self._root / hashlib.sha256(key.encode()).hexdigest()
        try:
            handle = self._held(entry)
            for _ in range(_ATTEMPTS):
                if handle is None:
                    self._fetch(entry, fill)
                    handle = self._held(entry)
        except OSError as error:
            raise self._failed(f"cannot be written: {error.strerror}") from error
        if handle is None:
            raise self._failed("does not keep what is written into it")
        try:
            os.utime(entry)
            self._make_room()
            yield entry / _FILES
        finally:
            os.close(handle)

    def _failed(self, message: str) -> OurFailure:
        return OurFailure(message, file=str(self._root), fix="free some disk, or mend it")

    def _held(self, entry: Path) -> int | None:
        """A lock on a sound entry, or None where there is none; a damaged one is taken away."""
        handle = _locked(entry, fcntl.LOCK_SH)
        if handle is None or _is_sound(entry):
            return handle
        os.close(handle)
        handle = _locked(entry, fcntl.LOCK_EX)  # when nobody reads it
        if handle is not None:
            if not _is_sound(entry):
                self._remove(entry)
            os.close(handle)
        return None

    def _fetch(self, entry: Path, fill: Callable[[Path], None]) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=self._root, prefix=_NEW))
        handle = _locked(folder, fcntl.LOCK_EX)
        try:
            (folder / _FILES).mkdir()
            fill(folder / _FILES)
            (folder / _MANIFEST).write_text(json.dumps(_digests(folder / _FILES)))
            try:
                folder.rename(entry)
            except OSError as error:
                # Another process was faster: a folder never replaces one that holds files.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            if handle is not None:
                os.close(handle)
            shutil.rmtree(folder, ignore_errors=True)

    def _remove(self, entry: Path) -> None:
        """Takes an entry away in one step, whoever else wants to."""
        gone = Path(tempfile.mkdtemp(dir=self._root, prefix=_GONE))
        with suppress(OSError):
            entry.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for entry in self._root.iterdir() if self._root.is_dir() else ():
            with suppress(OSError):  # another process took it away
                size = sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())
                found.append((entry.stat().st_mtime, size, entry))
        return sorted(found)

    def _make_room(self) -> None:
        entries = self._entries()
        free = shutil.disk_usage(self._root).free
        total = sum(size for _, size, _ in entries)
        bound = min(self._limit, (free + total) // 2)
        for used, size, entry in entries:
            if entry.name.startswith((_NEW, _GONE)):
                if used > time.time() - _ABANDONED_SECONDS:
                    continue  # somebody is at it
            elif total <= bound:
                continue
            handle = _locked(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if handle is not None:
                self._remove(entry)
                os.close(handle)
                total -= size


def _locked(entry: Path, how: int) -> int | None:
    """A handle that holds a lock on a folder until it is closed; None where there is no such
    folder any more, or the lock cannot be had."""
    try:
        handle = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, how)
        # Renamed away while we waited: what bears the name now is another folder.
        if os.fstat(handle).st_ino == entry.stat().st_ino:
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in sorted(folder.iterdir())}


def _is_sound(entry: Path) -> bool:
    try:
        found: object = json.loads((entry / _MANIFEST).read_bytes())
        return found == _digests(entry / _FILES)
    except (OSError, ValueError, RecursionError):
        return False
