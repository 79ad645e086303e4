"""The same commit through git itself, for a repository that keeps such files in Git LFS.

The API would store the weights as they are, beside everybody else's pointers. So the commit is made
in an empty clone of our own, where nothing of the user's checkout, index or hooks takes part.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError
from adapterbot.files.tree import file_sha256
from adapterbot.gh.branches import Placement
from adapterbot.gh.refs import PERMISSION, BranchMovedError
from adapterbot.gh.remote import Remote
from adapterbot.git.program import environment_apart, finished, no_git

_TIMEOUT = 1800
_DENIED = (
    "denied to",
    "error: 403",
    "Permission denied",
    "not accessible",
    "Write access to repository",
    "Authentication failed",
    "could not read Username",
)


def tracked(attributes: Mapping[str, bytes], paths: Sequence[str]) -> frozenset[str]:
    """The paths that .gitattributes hands to Git LFS, as git itself reads it.

    Args:
        attributes: every .gitattributes that has a say, by repository path.
    """
    if not attributes:
        return frozenset()
    with tempfile.TemporaryDirectory(prefix="adapterbot-") as folder:
        root = Path(folder)
        for path, content in attributes.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        environment = environment_apart([("core.fsmonitor", "false")])
        _git(root, environment, "init", "-q", "--template=")
        told = _git(root, environment, "check-attr", "-z", "filter", "--", *paths).split("\0")
    return frozenset(
        path for path, value in zip(told[0::3], told[2::3], strict=False) if value == "lfs"
    )


def place(remote: Remote, wanted: Placement, in_lfs: frozenset[str]) -> str | None:
    """As `Branches.place`, with the files of `in_lfs` in Git LFS.

    Raises:
        BranchMovedError: a branch is not where it was.
        InputError: git-lfs is not installed, or the token may not push.
        GitHubFailure: the network, or the server.
    """
    if shutil.which("git-lfs") is None:
        raise InputError(
            "keeps adapters in Git LFS, and git-lfs is not on this machine",
            file=min(in_lfs, default=None),
            fix="install git-lfs",
        )
    with tempfile.TemporaryDirectory(prefix="adapterbot-") as folder:
        clone = _Clone(Path(folder), remote)
        clone.fetch(wanted)
        commit = clone.commit(wanted)
        if commit is None:
            return None
        files = [file for path, file in wanted.change.files.items() if path in in_lfs]
        if files:
            # Before the branch: a pointer without its object breaks every clone.
            objects = sorted({file_sha256(file) for file in files})
            clone.git("lfs", "push", "--object-id", "origin", *objects)
        clone.push(wanted, commit)
        return commit


@dataclass(frozen=True)
class _Clone:
    """An empty clone in a folder of its own; only what the commit is made from comes into it."""

    root: Path
    remote: Remote

    def git(self, *arguments: str, feed: str = "") -> str:
        return _git(self.root, self.remote.environment(), *arguments, feed=feed)

    def fetch(self, wanted: Placement) -> None:
        """The parent commit alone.

        Raises:
            BranchMovedError: its branch no longer ends in it.
        """
        self.git("init", "-q", "--template=")
        self.git("remote", "add", "origin", self.remote.url)
        ref = f"refs/heads/{wanted.onto}"
        self.git("fetch", "-q", "--no-tags", "--depth=1", "origin", ref)
        if self.git("rev-parse", "FETCH_HEAD").strip() != wanted.parent:
            raise BranchMovedError

    def commit(self, wanted: Placement) -> str | None:
        """The commit, on no branch yet; None when its parent holds all of it already."""
        change, parent = wanted.change, wanted.parent
        self.git("read-tree", parent)
        listed = self.git("ls-files", "-z").split("\0")
        attributes = [name for name in listed if name.rpartition("/")[2] == ".gitattributes"]
        if attributes:
            self.git("checkout-index", "-q", "-f", "--", *attributes)
        for path, file in change.files.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, self.root / path)
        self.git("add", "-f", "--", *change.files)
        prefix = f"{change.folder}/"
        inside = (name.removeprefix(prefix) for name in listed if name.startswith(prefix))
        strays = list(change.strays({name: None for name in inside if "/" not in name}))
        if strays:
            self.git("rm", "-q", "--cached", "--", *strays)
        tree = self.git("write-tree").strip()
        if tree == self.git("rev-parse", f"{parent}^{{tree}}").strip():
            return None
        return self.git("commit-tree", tree, "-p", parent, "-F", "-", feed=wanted.message).strip()

    def push(self, wanted: Placement, commit: str) -> None:
        """Move the branch to the commit, from where it was seen.

        Raises:
            BranchMovedError: it is no longer there.
            InputError, GitHubFailure: as `place`.
        """
        ref, old = f"refs/heads/{wanted.branch}", wanted.old or ""
        try:
            lease = f"--force-with-lease={ref}:{old}"
            self.git("push", "-q", lease, "origin", f"{commit}:{ref}")
        except AdapterbotError:
            # Refused, for which git has many messages, or done and the answer lost: the branch
            # itself says which.
            now = self.git("ls-remote", "origin", ref).partition("\t")[0]
            if now not in (commit, old):
                raise BranchMovedError from None
            if now != commit:
                raise


def _git(root: Path, environment: Mapping[str, str], *arguments: str, feed: str = "") -> str:
    try:
        done = finished(
            ["git", "-C", str(root), *arguments],
            environment,
            given=feed.encode(),
            seconds=_TIMEOUT,
        )
    except FileNotFoundError as error:
        raise no_git() from error
    except subprocess.TimeoutExpired as error:
        raise GitHubFailure(
            f"git {arguments[0]} did not end within {_TIMEOUT} s", fix="run the job again"
        ) from error
    if done.returncode:
        raise _why(arguments[0], done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def _why(command: str, told: str) -> AdapterbotError:
    """What git's "no" means for the person who has to act."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    said = " ".join(lines[-2:])[:500] or "no reason given"
    if any(words in told for words in _DENIED):
        return InputError(
            f"the token may not push: {said}",
            fix=f"add `permissions: {PERMISSION}` to the job, or to the App that it acts as",
        )
    if "certificate" in told:
        return InputError(
            f"the certificate of GitHub's server is not trusted: {said}",
            fix="set GIT_SSL_CAINFO to a file with the certificate of your authority",
        )
    return GitHubFailure(f"git {command} failed: {said}", fix="run the job again")
