"""Files as they stand at a ref, or in the working tree: the only way the gate reads a repository.

A pull request chooses these bytes, so every path is resolved inside the tree, symbolic links are
refused, sizes are bounded, and a Git LFS pointer is never mistaken for the file it stands for.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.paths import is_hidden, normalise

TEXT_LIMIT = 16 * 1024 * 1024
_LFS_HEADER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_POINTER_LIMIT = 1024
_LFS_FILTER = b"filter=lfs"
_LFS_SIZE = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
_LFS_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)


# A second write within one tick of the file system's clock leaves the times as they were, and some
# file systems tick every 2 s.
_SETTLED_NS = 2_000_000_000

Identity = tuple[str, str]


class Tree(Protocol):
    """A directory tree of regular files, addressed by repository-relative POSIX paths."""

    @property
    def label(self) -> str:
        """What a reader calls it: a short commit or "working tree"."""

    def has(self, path: str) -> bool:
        """Whether `path` is a file, or a directory that holds at least one."""

    def survey(self) -> tuple[str, ...]:
        """Every regular file that a search may find, sorted: links are left out, not refused, and
        so are hidden folders (`.git`, `.venv`) and installed packages."""

    def files(self, directory: str = "") -> tuple[str, ...]:
        """Every file below `directory`, sorted; none where there is no such directory.

        Raises:
            InputError: when one of them, or a folder above, is a symbolic link or a submodule.
        """

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: missing, a symbolic link, larger than `limit`, or an LFS pointer whose
                object is neither on this machine nor to be had.
        """

    def open(self, path: str, *, fetch: bool = True) -> AbstractContextManager[BinaryIO]:
        """The bytes of one file of any size as a stream, which may not be seekable.

        Args:
            fetch: whether a Git LFS object that is not on this machine is worth fetching.

        Raises:
            InputError: as `read`, but for the limit.
        """

    def sha256(self, path: str) -> str:
        """SHA-256 of one file's content; for an LFS pointer, of the file that it stands for.

        Raises:
            InputError: missing, unreadable, a symbolic link, or changed while it was hashed.
        """

    def identity(self, path: str) -> Identity | None:
        """Where a file lies and what it looks like from outside: while both stay the same, so does
        its content. None where that cannot be known, as for a file that was only just written.

        Raises:
            InputError: as `sha256`.
        """

    def on_disk(self, path: str) -> Path:
        """A real file or directory with this content, for libraries that want a path."""

    def rewritten(self, paths: Sequence[str]) -> Mapping[str, str]:
        """Path → attributes, for those files that Git would check out with other bytes."""


def lfs_oid(content: bytes) -> str | None:
    """The SHA-256 that a Git LFS pointer stands for, or None when it is not a pointer."""
    # Git LFS itself writes less; a long file with this head is somebody's attempt to borrow a hash.
    if len(content) >= _LFS_POINTER_LIMIT or not content.startswith(_LFS_HEADER):
        return None
    match = _LFS_OID.search(content)
    return match.group(1).decode() if match else None


def lfs_size(pointer: bytes) -> int:
    """How many bytes a Git LFS pointer says that its file has; 0 where it says none."""
    match = _LFS_SIZE.search(pointer)
    return int(match.group(1)) if match else 0


def missing(path: str, label: str) -> InputError:
    """The error for a file that is not there."""
    return InputError(
        f"does not exist in {label}", file=path, fix="check the path, or commit the file"
    )


def uses_lfs(tree: Tree, files: Sequence[str]) -> bool:
    """Whether a .gitattributes among the files hands some to Git LFS. What comes from the Hub
    brings its own, beside the weights.

    Raises:
        InputError: one cannot be read.
    """
    attributes = (name for name in files if PurePosixPath(name).name == ".gitattributes")
    return any(_LFS_FILTER in tree.read(name) for name in attributes)


def not_a_file(path: str, here: Path, label: str) -> InputError:
    """The error for what is not there, or is there and no file."""
    if there.is_dir(here):
        return InputError("is a directory", file=path, fix="name the file in it")
    if there.exists(here):
        return InputError("is not a regular file", file=path, fix="replace it by a file")
    return missing(path, label)


def too_large(path: str, size: int, limit: int) -> InputError:
    """The error for a file above our bound."""
    return InputError(
        f"is {size:,} bytes, more than the {limit:,} we read", file=path, fix="make it smaller"
    )


def unreadable(path: str) -> InputError:
    """The error for a file that we may not read."""
    return InputError("cannot be read", file=path, fix="make it readable")


def link_refused(path: str) -> InputError:
    """The error for a symbolic link."""
    return InputError("is a symbolic link", file=path, fix="commit the file itself")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file on disk, streamed. One that looks as it did (see `stamp`) is not read again
    by this process: a base model of gigabytes is asked about for every adapter."""
    seen = stamp(path)
    return _sha256_as_seen(seen) if seen else _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=65_536)
def _sha256_as_seen(seen: Identity) -> str:
    # What is written while it is read looks otherwise afterwards, and is then asked for anew.
    path, _ = seen
    return _sha256(Path(path))


def stamp(path: Path) -> Identity | None:
    """As `Tree.identity`, of a file on disk."""
    try:
        found = path.stat()
    except OSError:
        return None  # hashing it will say why
    if max(found.st_mtime_ns, found.st_ctime_ns) > time.time_ns() - _SETTLED_NS:
        return None
    looks = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
    return str(path.absolute()), " ".join(str(number) for number in looks)


@dataclass(frozen=True)
class WorkTree:
    """The files on disk below `root`."""

    root: Path
    label: str = "the working tree"

    def _resolve(self, path: str) -> Path:
        path = normalise(path)
        here = self.root
        try:
            for part in PurePosixPath(path).parts:
                here = here / part
                if there.is_symlink(here):
                    raise link_refused(path)
        except PermissionError as error:
            raise unreadable(path) from error
        return here

    def has(self, path: str) -> bool:
        here = self._resolve(path)
        return there.is_file(here) or (
            there.is_dir(here) and next(self._walk(here), None) is not None
        )

    def _walk(self, directory: Path) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            # What is passed over would be missing from a digest, and nobody would know.
            where = Path(error.filename).relative_to(self.root).as_posix()
            raise unreadable(where) from error

        for folder, names, files in os.walk(directory, onerror=refuse):
            names[:] = sorted(name for name in names if name != ".git")
            for name in (*names, *files):
                if (Path(folder) / name).is_symlink():
                    raise link_refused(str((Path(folder) / name).relative_to(self.root)))
            # A submodule or a work tree has a file of that name, with a path of this machine.
            yield from (Path(folder) / name for name in sorted(files) if name != ".git")

    def survey(self) -> tuple[str, ...]:
        found: list[str] = []
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if not is_hidden(name)]
            found += (
                path.relative_to(self.root).as_posix()
                for path in (Path(folder) / name for name in files)
                if there.is_file(path) and not there.is_symlink(path)
            )
        return tuple(sorted(found))

    def files(self, directory: str = "") -> tuple[str, ...]:
        here = self._resolve(directory)
        if there.is_file(here):
            return (normalise(directory),)
        if not there.exists(here):
            return ()
        return tuple(sorted(file.relative_to(self.root).as_posix() for file in self._walk(here)))

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        here = self._resolve(path)
        if not there.is_file(here):
            raise not_a_file(path, here, self.label)
        size = here.stat().st_size
        if size > limit:
            raise too_large(path, size, limit)
        try:
            content = here.read_bytes()
        except PermissionError as error:
            raise unreadable(path) from error
        if lfs_oid(content):
            raise InputError(
                "is a Git LFS pointer, not the file itself",
                file=path,
                fix="run `git lfs pull`, or set `lfs: true` in actions/checkout",
            )
        return content

    @contextmanager
    def open(self, path: str, *, fetch: bool = True) -> Iterator[BinaryIO]:
        del fetch  # what is on disk is all there is
        here = self._resolve(path)
        if not there.is_file(here):
            raise not_a_file(path, here, self.label)
        if here.stat().st_size < _LFS_POINTER_LIMIT:
            self.read(path)  # which refuses a pointer
        try:
            stream = here.open("rb")
        except PermissionError as error:
            raise unreadable(path) from error
        with stream:
            yield stream

    def sha256(self, path: str) -> str:
        here = self._resolve(path)
        if not there.is_file(here):
            raise not_a_file(path, here, self.label)
        try:
            before = here.stat()
            with here.open("rb") as stream:
                pointer = (
                    lfs_oid(stream.read(_LFS_POINTER_LIMIT))
                    if before.st_size < _LFS_POINTER_LIMIT
                    else None
                )
            digest = pointer or file_sha256(here)
            after = here.stat()
        except PermissionError as error:
            raise unreadable(path) from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InputError(
                "changed while it was being read", file=path, fix="try again when it is still"
            )
        return digest

    def identity(self, path: str) -> Identity | None:
        return stamp(self._resolve(path))

    def on_disk(self, path: str) -> Path:
        here = self._resolve(path)
        if not there.exists(here):
            raise missing(path, self.label)
        for file in self.files(path):
            real = self.root / file
            if real.stat().st_size < _LFS_POINTER_LIMIT and lfs_oid(real.read_bytes()):
                self.read(file)
        return here

    def rewritten(self, paths: Sequence[str]) -> Mapping[str, str]:
        del paths  # what is on disk has been written
        return {}
