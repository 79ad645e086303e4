"""A commit on a branch through GitHub's Git Data API: no clone, and only what differs is sent.

Blobs, trees and commits are named by their content, so writing one twice is harmless; a branch is
moved last, and only from where we saw it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from github.GitBlob import GitBlob
from github.InputGitTreeElement import InputGitTreeElement

from adapterbot.errors import InputError
from adapterbot.gh.refs import Refs

# GitHub refuses a file beyond this outside Git LFS.
LARGEST_BLOB = 100 * 1024 * 1024
_ATTRIBUTES = ".gitattributes"
_ATTRIBUTES_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Change:
    """What a commit does: the files that it writes, and the folder that shall hold no others.

    Attributes:
        files: repository path → the file on disk.
        folder: the adapter's directory; files directly in it that `belongs` knows as part of an
            adapter, and that are not in `files`, are removed.
        belongs: whether a file name in `folder` is part of an adapter.
    """

    files: Mapping[str, Path]
    folder: str
    belongs: Callable[[str], bool]

    @property
    def folders(self) -> set[str]:
        """Every directory that is written to."""
        return {self.folder} | {str(PurePosixPath(path).parent) for path in self.files}

    def strays(self, present: Mapping[str, object]) -> Iterator[str]:
        """Paths to remove, given the names in `folder`."""
        for name in present:
            path = f"{self.folder}/{name}"
            if path not in self.files and self.belongs(name):
                yield path


@dataclass(frozen=True)
class Placement:
    """A commit that is to be made, and the branch that then ends in it.

    Attributes:
        branch: the branch that moves.
        old: the commit at which it was seen; None where there was no such branch.
        onto: the branch that ends in `parent`.
        parent: the commit that the change is made on top of.
    """

    branch: str
    old: str | None
    onto: str
    parent: str
    change: Change
    message: str


@dataclass(frozen=True)
class Entry:
    """One name in a tree: "blob", "tree" or "commit" (a submodule), its mode and object."""

    kind: str
    mode: str
    sha: str


@dataclass(frozen=True)
class Branches(Refs):
    """The branches of one repository, and what their commits hold."""

    _listed: dict[str, dict[str, Entry]] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------ reading

    def required(self, branch: str) -> str:
        """The commit of a branch that must exist.

        Raises:
            InputError: it does not.
        """
        found = self.head(branch)
        if found is None:
            raise InputError(
                f"{self.repository} has no branch {branch!r}",
                field="--base",
                fix="name the branch that the pull request goes into, and check that the token "
                "may read the repository",
            )
        return found

    def message(self, commit: str) -> str:
        """The message of a commit."""
        return self._ask("reading a commit", lambda: self._repo.get_git_commit(commit).message)

    def fork_point(self, base: str, head: str) -> str:
        """The commit at which `head` left `base`."""
        return self._ask(
            "comparing commits", lambda: self._repo.compare(base, head).merge_base_commit.sha
        )

    def attributes(self, commit: str, change: Change) -> dict[str, bytes]:
        """The .gitattributes files that have a say in what is written, by path.

        Raises:
            InputError: one of them is no file, or too large to be one.
        """
        found: dict[str, bytes] = {}
        for folder in sorted({up for path in change.folders for up in _upwards(path)}):
            entry = self._listing(self._tree_of(commit), folder).get(_ATTRIBUTES)
            if entry is None:
                continue
            path = f"{folder}/{_ATTRIBUTES}" if folder else _ATTRIBUTES
            refusal = InputError("is not a file that Git reads", file=path, fix="correct it")
            if entry.kind != "blob" or entry.mode == "120000":
                raise refusal
            blob = self._ask(f"reading {path}", partial(self._blob_of, entry.sha))
            if blob.size > _ATTRIBUTES_LIMIT:
                raise refusal
            found[path] = base64.b64decode(blob.content)
        return found

    def _blob_of(self, sha: str) -> GitBlob:
        # Asked for on the spot: PyGithub would wait until somebody reads a field of it.
        return self._repo.get_git_blob(sha).complete()

    # ------------------------------------------------------------ writing

    def place(self, wanted: Placement) -> str | None:
        """Make the commit, and move the branch to it.

        Returns: the commit; None when its parent holds all of it already, and nothing was written.

        Raises:
            BranchMovedError: the branch is no longer where it was seen.
            InputError: a file is too large, or in the way.
        """
        tree = self._tree_of(wanted.parent)
        elements = list(self._elements(tree, wanted.change))
        if not elements:
            return None
        base = self._ask("reading a tree", lambda: self._repo.get_git_tree(tree))
        made = self._ask("writing a tree", lambda: self._repo.create_git_tree(elements, base))
        above = self._ask("reading a commit", lambda: self._repo.get_git_commit(wanted.parent))
        commit = self._ask(
            "writing a commit", lambda: self._repo.create_git_commit(wanted.message, made, [above])
        ).sha
        self.move(wanted.branch, wanted.old, commit, force=wanted.old != wanted.parent)
        return commit

    def _elements(self, tree: str, change: Change) -> Iterator[InputGitTreeElement]:
        """What differs from `tree`; the blobs of what is new are written on the way."""
        for path, file in sorted(change.files.items()):
            folder, _, name = path.rpartition("/")
            there = self._listing(tree, folder).get(name)
            if there and there.kind != "blob":
                raise _in_the_way(path)
            mode = there.mode if there and there.mode == "100755" else "100644"
            if there is None or (there.mode, there.sha) != (mode, git_digest(file)):
                yield InputGitTreeElement(path, mode, "blob", sha=self._blob(path, file))
        for path in sorted(change.strays(self._blobs(tree, change.folder))):
            yield InputGitTreeElement(path, "100644", "blob", sha=None)

    def _blob(self, path: str, file: Path) -> str:
        size = file.stat().st_size
        if size > LARGEST_BLOB:
            raise InputError(
                f"is {size:,} bytes; GitHub takes {LARGEST_BLOB:,} at most outside Git LFS",
                file=path,
                fix=f"track it first: `git lfs track '*{file.suffix}'` on the base branch",
            )
        content = base64.b64encode(file.read_bytes()).decode()
        return self._ask(
            f"uploading {path}", lambda: self._repo.create_git_blob(content, "base64")
        ).sha

    def _tree_of(self, commit: str) -> str:
        return self._ask("reading a commit", lambda: self._repo.get_git_commit(commit).tree.sha)

    def _blobs(self, tree: str, folder: str) -> dict[str, Entry]:
        return {n: e for n, e in self._listing(tree, folder).items() if e.kind == "blob"}

    def _listing(self, tree: str, folder: str) -> dict[str, Entry]:
        """The names in a folder of a tree; none where there is no such folder."""
        here = self._names(tree)
        for part in PurePosixPath(folder).parts:
            entry = here.get(part)
            if entry is None:
                return {}
            if entry.kind != "tree":
                raise _in_the_way(folder)
            here = self._names(entry.sha)
        return here

    def _names(self, tree: str) -> dict[str, Entry]:
        if tree not in self._listed:
            found = self._ask("reading a tree", lambda: self._repo.get_git_tree(tree).tree)
            self._listed[tree] = {e.path: Entry(e.type, e.mode, e.sha) for e in found}
        return self._listed[tree]


def git_digest(file: Path) -> str:
    """The name that Git gives a file's content: SHA-1 over its length and its bytes."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _in_the_way(path: str) -> InputError:
    return InputError(
        "is a folder, a link or a submodule in the repository, not a file in a folder",
        file=path,
        field="--path",
        fix="choose another path",
    )


def _upwards(folder: str) -> Iterator[str]:
    """A folder and all those around it, the root as ""."""
    path = PurePosixPath(folder)
    for up in (path, *path.parents):
        yield "" if str(up) == "." else str(up)
