"""The files of one commit, read from Git's objects: nothing is checked out, and nothing of the
repository (hooks, filters, fsmonitor) is executed."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.atomic import not_written
from adapterbot.files.paths import is_hidden, normalise
from adapterbot.files.tree import (
    TEXT_LIMIT,
    Identity,
    file_sha256,
    lfs_oid,
    lfs_size,
    link_refused,
    missing,
    too_large,
)
from adapterbot.git import attributes
from adapterbot.git.blobs import blob, blob_size, blob_stream
from adapterbot.git.program import ask_remote, git, git_at_most, git_directory

_SYMLINK_MODE = "120000"
_SUBMODULE_MODE = "160000"
_SMALL = 256 * 1024
_HELD = 64 * 1024 * 1024
_PIECE = 1024 * 1024
# A million files and more. Folders that hold one another stand for billions in a few kilobytes.
_LISTING = 128 * 1024 * 1024
# What a checkout is told to leave out is wanted here; the `.lfsconfig` may be a pull request's.
_EVERY_PATH = (("lfs.fetchinclude", ""), ("lfs.fetchexclude", ""))


# A tree object that was made by hand can say so, and not every server refuses it.
_CLIMBS = re.compile(rb"[\t/]\.{0,2}[/\0]")


@dataclass(frozen=True)
class _Entry:
    mode: str
    object_id: str


@dataclass
class GitTree:
    """The files of one commit, read from Git's objects; nothing is checked out or executed."""

    repository: Path
    commit: str
    _entries: dict[str, _Entry] = field(default_factory=dict, init=False)
    _export: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        asked = ("ls-tree", "-r", "-z", "--full-tree", self.commit)
        listing = git_at_most(self.repository, _LISTING, *asked)
        if listing is None:
            raise InputError(
                f"holds more files than the {_LISTING:,} bytes of a listing that we read",
                file=self.label,
                fix="leave the folders with the most of them out of the commit",
            )
        if _CLIMBS.search(listing):
            raise InputError(
                "holds a name that no checkout can have, such as `..`",
                file=self.label,
                fix="make the commit with Git",
            )
        for line in listing.split(b"\0"):
            if not line:
                continue
            head, _, name = line.partition(b"\t")
            mode, _, object_id = head.decode().split()
            self._entries[name.decode("utf-8", "surrogateescape")] = _Entry(mode, object_id)

    @property
    def label(self) -> str:
        return self.commit[:7]

    def has(self, path: str) -> bool:
        path = normalise(path)
        prefix = f"{path}/" if path else ""
        return path in self._entries or next(self._below(prefix), None) is not None

    def _refuse_beyond_link(self, path: str) -> None:
        """Refuses what lies behind a link: no tree of this commit has it, but a checkout does."""
        for parent in PurePosixPath(path).parents:
            if str(parent) in self._entries:
                self._entry(str(parent))

    @functools.cached_property
    def _names(self) -> list[str]:
        return sorted(self._entries)

    def _below(self, prefix: str) -> Iterator[str]:
        """The names that begin with a folder's, sorted: they stand together, and a tree of a
        hundred thousand files is asked for many folders."""
        for place in range(bisect_left(self._names, prefix), len(self._names)):
            name = self._names[place]
            if not name.startswith(prefix):
                return
            yield name

    def survey(self) -> tuple[str, ...]:
        return self._survey

    @functools.cached_property
    def _survey(self) -> tuple[str, ...]:
        hidden = functools.cache(lambda folder: any(map(is_hidden, folder.split("/"))))
        return tuple(
            name
            for name in self._names
            if self._entries[name].mode not in (_SYMLINK_MODE, _SUBMODULE_MODE)
            and not hidden(name.rpartition("/")[0])
        )

    def files(self, directory: str = "") -> tuple[str, ...]:
        directory = normalise(directory)
        if directory in self._entries:
            names = [directory]
        else:
            self._refuse_beyond_link(directory)
            names = list(self._below(f"{directory}/" if directory else ""))
        for name in names:
            self._entry(name)
        return tuple(names)

    def _entry(self, path: str) -> _Entry:
        entry = self._entries.get(path)
        if entry is None:
            self._refuse_beyond_link(path)
            raise missing(path, self.label)
        if entry.mode == _SYMLINK_MODE:
            raise link_refused(path)
        if entry.mode == _SUBMODULE_MODE:
            raise InputError("is a submodule", file=path, fix="commit the files themselves")
        return entry

    def _blob(self, path: str) -> tuple[str, int]:
        """Name and size of a file's blob, fetched if it is not here."""
        object_id = self._entry(path).object_id
        try:
            return object_id, _blob_size(self.repository, object_id)
        except OurFailure as error:
            raise InputError(
                f"at {self.label} is left out of this clone, and could not be fetched",
                file=path,
                fix="leave `filter` and `sparse-checkout` out of actions/checkout, or run "
                "`git fetch --refetch --no-filter`",
            ) from error

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        path = normalise(path)
        object_id, size = self._blob(path)
        if size > limit:
            raise too_large(path, size, limit)
        read = _small_blob if size <= _SMALL else blob
        content = read(self.repository, object_id)
        oid = lfs_oid(content)
        if oid is None:
            return content
        announced = lfs_size(content)
        if announced > limit:  # before it is fetched
            raise too_large(path, announced, limit)
        stored = self._lfs_object(path, content, oid)
        if stored.stat().st_size > limit:
            raise too_large(path, stored.stat().st_size, limit)
        return stored.read_bytes()

    @contextmanager
    def open(self, path: str, *, fetch: bool = True) -> Iterator[BinaryIO]:
        path = normalise(path)
        object_id, size = self._blob(path)
        if size > _SMALL:
            with blob_stream(self.repository, object_id) as stream:
                yield stream
            return
        content = _small_blob(self.repository, object_id)
        oid = lfs_oid(content)
        if oid is None:
            yield io.BytesIO(content)
            return
        with self._lfs_object(path, content, oid, fetch=fetch).open("rb") as stream:
            yield stream

    def sha256(self, path: str) -> str:
        object_id, size = self._blob(normalise(path))
        digest = _blob_sha256 if size <= _HELD else _large_blob_sha256
        return digest(self.repository, object_id)

    def identity(self, path: str) -> Identity | None:
        return f"git blob {self._entry(normalise(path)).object_id}", ""

    def _lfs_object(self, path: str, pointer: bytes, oid: str, *, fetch: bool = True) -> Path:
        """The real bytes behind an LFS pointer, fetched where this machine lacks them: for a pull
        request actions/checkout gets the objects of its own commit, not those of the base.

        They are looked for in Git LFS's own store and in the working tree, and believed only
        if their digest is the pointer's.
        """
        common = git_directory(self.repository)
        stored = common / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        for candidate in (stored, self.repository / path):
            if _holds(candidate, oid):
                return candidate
        why = ""
        if fetch:
            smudge = ("lfs", "smudge", "--", path)
            settings = [*_lfs_server(self.repository), *_EVERY_PATH]
            try:
                ask_remote(self.repository, *smudge, given=pointer, settings=settings)
            except OurFailure as error:
                why = f": {error.message}"
            if _holds(stored, oid):
                return stored
        raise InputError(
            f"is a Git LFS pointer at {self.label}, and its object {oid[:12]}… is not here{why}",
            file=path,
            fix=f"install git-lfs, and run `git lfs fetch origin {self.commit[:12]}`",
        )

    def on_disk(self, path: str) -> Path:
        path = normalise(path)
        names = self.files(path)
        if not names:
            raise missing(path, self.label)
        for name in names:
            target = self._exported() / name
            if not target.exists():
                self._copy(name, target)
        return self._exported() / path

    def rewritten(self, paths: Sequence[str]) -> Mapping[str, str]:
        return attributes.rewritten(self.repository, self.commit, paths)

    def parted_at(self, starts: Sequence[GitTree]) -> tuple[GitTree, frozenset[str]]:
        """One tree for several merge bases of this commit, a base, and another: the files that all
        of them hold alike, and this commit's own of the others.

        Returns:
            That tree, and the names of those others. A file that only the base has is one of them:
            a merge of the merge bases may have it, too, if one of them renames a folder.
        """
        found = GitTree(self.repository, self.commit)
        first, *rest = (start._entries for start in starts)  # noqa: SLF001 of this class
        names = {*self._entries}.union(first, *rest)
        disputed = {
            name
            for name in names
            if name not in first or any(other.get(name) != first[name] for other in rest)
        }
        found._entries |= {name: entry for name, entry in first.items() if name not in disputed}
        return found, frozenset(disputed)

    def _exported(self) -> Path:
        if self._export is None:
            # What a killed job leaves behind here goes with the runner's next job.
            place = os.environ.get("RUNNER_TEMP")
            here = place if place and Path(place).is_dir() else None
            self._export = tempfile.TemporaryDirectory(prefix="adapterbot-tree-", dir=here)
        return Path(self._export.name)

    def _copy(self, name: str, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.open(name) as content, target.open("wb") as copy:
                shutil.copyfileobj(content, copy, _PIECE)
        except BaseException as error:
            # The next who asks would take it for whole.
            target.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise not_written(target, error) from error
            raise


# A blob never changes, and the two sides of a comparison share most of theirs.
_small_blob = functools.lru_cache(maxsize=256)(blob)
_blob_size = functools.lru_cache(maxsize=65_536)(blob_size)


@functools.lru_cache(maxsize=65_536)
def _blob_sha256(repository: Path, object_id: str) -> str:
    content = blob(repository, object_id)
    return lfs_oid(content) or hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=65_536)
def _large_blob_sha256(repository: Path, object_id: str) -> str:
    digest = hashlib.sha256()
    with blob_stream(repository, object_id) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and file_sha256(path) == sha256


def _lfs_server(repository: Path) -> list[tuple[str, str]]:
    """The setting that names the Git LFS server: the one of Git's own configuration, or the
    remote's. Without it Git LFS would ask whichever the `.lfsconfig` of the checkout names, and
    that is the pull request's: an address inside the runner's network, if it likes.
    """
    for known in ("lfs.url", "remote.origin.lfsurl"):
        with suppress(OurFailure):
            return [("lfs.url", git(repository, "config", "--get", known).decode().strip())]
    with suppress(OurFailure):
        url = git(repository, "remote", "get-url", "origin").decode().strip()
        if url.startswith(("http://", "https://")):
            url = f"{url.removesuffix('/').removesuffix('.git')}.git/info/lfs"
        return [("lfs.url", url)]
    return [("lfs.url", "")]
