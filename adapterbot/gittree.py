"""The files of one commit, read from Git's objects: nothing is checked out, and nothing of the
repository (hooks, filters, fsmonitor) is executed."""

from __future__ import annotations

import functools
import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from adapterbot.errors import InputError
from adapterbot.gitobjects import blob, blob_stream, git
from adapterbot.paths import is_hidden, normalise
from adapterbot.tree import (
    TEXT_LIMIT,
    Identity,
    file_sha256,
    lfs_oid,
    link_refused,
    missing,
    too_large,
)

_SYMLINK_MODE = "120000"
_SUBMODULE_MODE = "160000"
_SMALL = 256 * 1024
_HELD = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Entry:
    mode: str
    object_id: str
    size: int


@dataclass
class GitTree:
    """The files of one commit, read from Git's objects; nothing is checked out or executed."""

    repository: Path
    commit: str
    _entries: dict[str, _Entry] = field(default_factory=dict, init=False)
    _export: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        listing = git(self.repository, "ls-tree", "-r", "-l", "-z", "--full-tree", self.commit)
        for line in listing.split(b"\0"):
            if not line:
                continue
            head, _, name = line.partition(b"\t")
            mode, _, object_id, size = head.decode().split()
            self._entries[name.decode("utf-8", "surrogateescape")] = _Entry(
                mode, object_id, 0 if size == "-" else int(size)
            )

    @property
    def label(self) -> str:
        return self.commit[:7]

    def has(self, path: str) -> bool:
        path = normalise(path)
        prefix = f"{path}/" if path else ""
        return path in self._entries or any(name.startswith(prefix) for name in self._entries)

    def survey(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                name
                for name, entry in self._entries.items()
                if entry.mode not in (_SYMLINK_MODE, _SUBMODULE_MODE)
                and not any(is_hidden(folder) for folder in name.split("/")[:-1])
            )
        )

    def files(self, directory: str = "") -> tuple[str, ...]:
        directory = normalise(directory)
        if directory in self._entries:
            names = [directory]
        else:
            prefix = f"{directory}/" if directory else ""
            names = sorted(name for name in self._entries if name.startswith(prefix))
        for name in names:
            self._entry(name)
        return tuple(names)

    def _entry(self, path: str) -> _Entry:
        entry = self._entries.get(path)
        if entry is None:
            raise missing(path, self.label)
        if entry.mode == _SYMLINK_MODE:
            raise link_refused(path)
        if entry.mode == _SUBMODULE_MODE:
            raise InputError("is a submodule", file=path, fix="commit the files themselves")
        return entry

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        path = normalise(path)
        entry = self._entry(path)
        if entry.size > limit:
            raise too_large(path, entry.size, limit)
        read = _small_blob if entry.size <= _SMALL else blob
        content = read(self.repository, entry.object_id)
        oid = lfs_oid(content)
        if oid is None:
            return content
        stored = self._lfs_object(path, oid)
        if stored.stat().st_size > limit:
            raise too_large(path, stored.stat().st_size, limit)
        return stored.read_bytes()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        path = normalise(path)
        entry = self._entry(path)
        if entry.size > _SMALL:
            with blob_stream(self.repository, entry.object_id) as stream:
                yield stream
            return
        content = _small_blob(self.repository, entry.object_id)
        oid = lfs_oid(content)
        with self._lfs_object(path, oid).open("rb") if oid else io.BytesIO(content) as stream:
            yield stream

    def sha256(self, path: str) -> str:
        entry = self._entry(normalise(path))
        digest = _blob_sha256 if entry.size <= _HELD else _large_blob_sha256
        return digest(self.repository, entry.object_id)

    def identity(self, path: str) -> Identity | None:
        return f"git blob {self._entry(normalise(path)).object_id}", ""

    def _lfs_object(self, path: str, oid: str) -> Path:
        """The real bytes behind an LFS pointer, if this machine has them.

        They are looked for in Git LFS's own store and in the working tree, and believed only
        when their digest is the pointer's.
        """
        common = Path(
            git(self.repository, "rev-parse", "--path-format=absolute", "--git-common-dir")
            .decode()
            .strip()
        )
        stored = common / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        in_tree = self.repository / path
        for candidate in (stored, in_tree):
            if candidate.is_file() and not candidate.is_symlink() and file_sha256(candidate) == oid:
                return candidate
        raise InputError(
            f"is a Git LFS pointer at {self.label} (object {oid[:12]}…) and the object is not here",
            file=path,
            fix=f"run `git lfs fetch origin {self.commit[:12]}`, "
            "or set `lfs: true` in actions/checkout",
        )

    def on_disk(self, path: str) -> Path:
        path = normalise(path)
        names = self.files(path)
        if not names:
            raise missing(path, self.label)
        if self._export is None:
            self._export = tempfile.TemporaryDirectory(prefix="adapterbot-tree-")
        root = Path(self._export.name)
        for name in names:
            target = root / name
            if target.exists():
                continue
            content = self.read(name, limit=1 << 40)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return root / path


# A blob never changes, and the two sides of a comparison share most of theirs.
_small_blob = functools.lru_cache(maxsize=256)(blob)


@functools.lru_cache(maxsize=65_536)
def _blob_sha256(repository: Path, object_id: str) -> str:
    content = blob(repository, object_id)
    return lfs_oid(content) or hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=65_536)
def _large_blob_sha256(repository: Path, object_id: str) -> str:
    digest = hashlib.sha256()
    with blob_stream(repository, object_id) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
