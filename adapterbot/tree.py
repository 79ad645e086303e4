"""Files as they stand at a ref, or in the working tree: the only way the gate reads a repository.

A pull request chooses these bytes, so every path is resolved inside the tree, symbolic links are
refused, sizes are bounded, and a Git LFS pointer is never mistaken for the file it stands for.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from adapterbot.errors import InputError, OurFailure

TEXT_LIMIT = 16 * 1024 * 1024
_LFS_HEADER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_SYMLINK_MODE = "120000"
_SUBMODULE_MODE = "160000"


class Tree(Protocol):
    """A directory tree of regular files, addressed by repository-relative POSIX paths."""

    @property
    def label(self) -> str:
        """What a reader calls it: a short commit or "working tree"."""

    def has(self, path: str) -> bool:
        """Whether `path` is a file, or a directory that holds at least one."""

    def files(self, directory: str = "") -> tuple[str, ...]:
        """Every file below `directory`, sorted.

        Raises:
            InputError: when one of them is a symbolic link or a submodule.
        """

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        """The bytes of one file.

        Raises:
            InputError: missing, a symbolic link, larger than `limit`, or an LFS pointer whose
                object is not on this machine.
        """

    def sha256(self, path: str) -> str:
        """SHA-256 of one file's content; for an LFS pointer, of the file that it stands for.

        Raises:
            InputError: missing, unreadable, a symbolic link, or changed while it was hashed.
        """

    def on_disk(self, path: str) -> Path:
        """A real file or directory with this content, for libraries that want a path."""


def normalise(path: str, *, field: str | None = None) -> str:
    """A repository-relative POSIX path without `.` and `..`; `""` is the root.

    Raises:
        InputError: for an absolute path, one that leaves the tree, or one with a NUL or newline.
    """
    if any(ord(character) < 32 for character in path):
        raise InputError(
            "path holds a control character", file=repr(path), field=field, fix="rename it"
        )
    if path.startswith("/"):
        raise InputError(
            "path is absolute", file=path, field=field, fix="write it relative to the repository"
        )
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not parts:
                raise InputError(
                    "path leaves the repository",
                    file=path,
                    field=field,
                    fix="keep the file inside the repository",
                )
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def join(directory: str, path: str, *, field: str | None = None) -> str:
    """`path` as seen from `directory`, normalised.

    Raises:
        InputError: as `normalise`.
    """
    if path.startswith("/"):
        return normalise(path, field=field)
    return normalise(f"{directory}/{path}" if directory else path, field=field)


def lfs_oid(content: bytes) -> str | None:
    """The SHA-256 that a Git LFS pointer stands for, or None when it is not a pointer."""
    if not content.startswith(_LFS_HEADER):
        return None
    match = _LFS_OID.search(content)
    return match.group(1).decode() if match else None


def _missing(path: str, label: str) -> InputError:
    return InputError(
        f"does not exist in {label}", file=path, fix="check the path, or commit the file"
    )


def _too_large(path: str, size: int, limit: int) -> InputError:
    return InputError(
        f"is {size:,} bytes, more than the {limit:,} we read", file=path, fix="make it smaller"
    )


def _link(path: str) -> InputError:
    return InputError("is a symbolic link", file=path, fix="commit the file itself")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class WorkTree:
    """The files on disk below `root`."""

    root: Path
    label: str = "the working tree"

    def _resolve(self, path: str) -> Path:
        path = normalise(path)
        here = self.root
        for part in PurePosixPath(path).parts:
            here = here / part
            if here.is_symlink():
                raise _link(path)
        return here

    def has(self, path: str) -> bool:
        here = self._resolve(path)
        return here.is_file() or (here.is_dir() and next(self._walk(here), None) is not None)

    def _walk(self, directory: Path) -> Iterator[Path]:
        for folder, names, files in os.walk(directory):
            names[:] = sorted(name for name in names if name != ".git")
            for name in (*names, *files):
                if (Path(folder) / name).is_symlink():
                    raise _link(str((Path(folder) / name).relative_to(self.root)))
            yield from (Path(folder) / name for name in sorted(files))

    def files(self, directory: str = "") -> tuple[str, ...]:
        here = self._resolve(directory)
        if here.is_file():
            return (normalise(directory),)
        return tuple(sorted(file.relative_to(self.root).as_posix() for file in self._walk(here)))

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        here = self._resolve(path)
        if not here.is_file():
            raise _missing(path, self.label)
        size = here.stat().st_size
        if size > limit:
            raise _too_large(path, size, limit)
        try:
            content = here.read_bytes()
        except PermissionError as error:
            raise InputError("cannot be read", file=path, fix="make it readable") from error
        if lfs_oid(content):
            raise InputError(
                "is a Git LFS pointer, not the file itself",
                file=path,
                fix="run `git lfs pull`, or set `lfs: true` in actions/checkout",
            )
        return content

    def sha256(self, path: str) -> str:
        here = self._resolve(path)
        if not here.is_file():
            raise _missing(path, self.label)
        try:
            before = here.stat()
            with here.open("rb") as stream:
                pointer = lfs_oid(stream.read(1024)) if before.st_size < 1024 else None
            digest = pointer or _sha256(here)
            after = here.stat()
        except PermissionError as error:
            raise InputError("cannot be read", file=path, fix="make it readable") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InputError(
                "changed while it was being read", file=path, fix="try again when it is still"
            )
        return digest

    def on_disk(self, path: str) -> Path:
        here = self._resolve(path)
        if not here.exists():
            raise _missing(path, self.label)
        for file in self.files(path):
            real = self.root / file
            if real.stat().st_size < 1024 and lfs_oid(real.read_bytes()):
                self.read(file)
        return here


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
        return path in self._entries or any(name.startswith(f"{path}/") for name in self._entries)

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
            raise _missing(path, self.label)
        if entry.mode == _SYMLINK_MODE:
            raise _link(path)
        if entry.mode == _SUBMODULE_MODE:
            raise InputError("is a submodule", file=path, fix="commit the files themselves")
        return entry

    def read(self, path: str, *, limit: int = TEXT_LIMIT) -> bytes:
        path = normalise(path)
        entry = self._entry(path)
        if entry.size > limit:
            raise _too_large(path, entry.size, limit)
        content = git(self.repository, "cat-file", "blob", entry.object_id)
        oid = lfs_oid(content)
        if oid is None:
            return content
        stored = self._lfs_object(path, oid)
        if stored.stat().st_size > limit:
            raise _too_large(path, stored.stat().st_size, limit)
        return stored.read_bytes()

    def sha256(self, path: str) -> str:
        path = normalise(path)
        content = git(self.repository, "cat-file", "blob", self._entry(path).object_id)
        return lfs_oid(content) or hashlib.sha256(content).hexdigest()

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
            if candidate.is_file() and not candidate.is_symlink() and _sha256(candidate) == oid:
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
            raise _missing(path, self.label)
        if self._export is None:
            self._export = tempfile.TemporaryDirectory(prefix="adapterbot-tree-")
        root = Path(self._export.name)
        for name in names:
            target = root / name
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name, limit=1 << 40))
        return root / path


def git(repository: Path, *arguments: str) -> bytes:
    """Standard output of a Git command that reads.

    Repository-local configuration that could run a program (`core.fsmonitor`, hooks) is off.

    Raises:
        OurFailure: Git is not installed or the command failed.
    """
    command = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]
    try:
        done = subprocess.run(
            [*command, "-C", str(repository), *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except FileNotFoundError as error:
        raise OurFailure("git was not found", fix="install git on this machine") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise OurFailure(f"git {arguments[0]} failed: {reason[-1] if reason else 'no reason given'}")
    return done.stdout


def repository_root(start: Path) -> Path:
    """The top of the Git checkout that `start` lies in.

    Raises:
        InputError: it lies in none.
    """
    try:
        return Path(git(start, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    except OurFailure as error:
        raise InputError(
            "is not inside a Git checkout", file=str(start), fix="run in your repository"
        ) from error


def resolve_commit(repository: Path, ref: str) -> str:
    """The full commit SHA of `ref`, fetched from `origin` when a shallow clone lacks it.

    Raises:
        InputError: there is no such commit here or at `origin`.
    """
    if ref.startswith("-") or not ref:
        raise InputError("is not a ref", file=repr(ref), fix="name a branch, tag or commit")
    for attempt in ("local", "fetched"):
        try:
            found = git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
            return found.decode().strip()
        except OurFailure:
            if attempt == "fetched" or not re.fullmatch(r"[0-9a-f]{40}", ref):
                break
            try:
                git(repository, "fetch", "--no-tags", "--depth=1", "origin", ref)
            except OurFailure:
                break
    raise InputError(
        "is not in this checkout",
        file=ref,
        field="ref",
        fix="set `fetch-depth: 0` in actions/checkout, or run `git fetch origin`",
    )
