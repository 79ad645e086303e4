"""The same commit through git itself, for a repository that keeps such files in Git LFS.

The API would store the weights as they are, beside everybody else's pointers. So the commit is made
in an empty clone of our own, where nothing of the user's checkout, index or hooks takes part.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError, OurFailure
from adapterbot.gh.branches import Change
from adapterbot.gh.refs import PERMISSION, BranchMovedError
from adapterbot.tree import file_sha256

# Not left to the machine's configuration: without these Git would commit the weights themselves.
_FILTER = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
}
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


@dataclass(frozen=True)
class Remote:
    """Where git pushes to. The token travels in the environment, never in an argument or URL."""

    url: str
    token: str = field(repr=False)
    author: str = "adapterbot"

    def environment(self) -> dict[str, str]:
        """Of every git process that we start."""
        settings = list(_FILTER.items())
        if self.url.startswith(("http://", "https://")):
            basic = base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
            header = f"http.{self.url}.extraheader"
            # Emptied first: GitHub refuses a request that also bears what actions/checkout left in
            # the machine's or the repository's configuration.
            settings += [(header, ""), (header, f"Authorization: Basic {basic}")]
        mail = f"{self.author}@users.noreply.github.com"
        return {
            **_environment(settings),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_AUTHOR_NAME": self.author,
            "GIT_AUTHOR_EMAIL": mail,
            "GIT_COMMITTER_NAME": self.author,
            "GIT_COMMITTER_EMAIL": mail,
        }


def _environment(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ours, without what Git tells the hook that may have started us of its own repository."""
    numbered = list(enumerate(settings))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_COUNT": str(len(numbered)),
        **{f"GIT_CONFIG_KEY_{i}": name for i, (name, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{i}": value for i, (_, value) in numbered},
    }


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
        environment = _environment([("core.fsmonitor", "false")])
        _git(root, environment, "init", "-q", "--template=")
        told = _git(root, environment, "check-attr", "-z", "filter", "--", *paths).split("\0")
    return frozenset(
        path for path, value in zip(told[0::3], told[2::3], strict=False) if value == "lfs"
    )


def place(
    remote: Remote,
    branch: str,
    parent: tuple[str, str],
    old: str | None,
    change: Change,
    message: str,
    in_lfs: frozenset[str],
) -> str | None:
    """As `Branches.place`, with the files of `in_lfs` in Git LFS.

    Args:
        parent: the branch that ends in the parent commit, and that commit.

    Raises:
        BranchMovedError: a branch is not where it was.
        InputError: git-lfs is not installed, or the token may not push.
        GitHubFailure: the network, or the server.
    """
    if shutil.which("git-lfs") is None:
        raise InputError(
            "keeps adapters in Git LFS, and git-lfs is not on this machine",
            file=_first(in_lfs),
            fix="install git-lfs",
        )
    with tempfile.TemporaryDirectory(prefix="adapterbot-") as folder:
        root, environment = Path(folder), remote.environment()

        def git(*arguments: str, feed: str | None = None) -> str:
            return _git(root, environment, *arguments, feed=feed)

        parent_branch, parent_commit = parent
        git("init", "-q", "--template=")
        git("remote", "add", "origin", remote.url)
        git("fetch", "-q", "--no-tags", "--depth=1", "origin", f"refs/heads/{parent_branch}")
        if git("rev-parse", "FETCH_HEAD").strip() != parent_commit:
            raise BranchMovedError
        git("read-tree", parent_commit)
        listed = git("ls-files", "-z").split("\0")
        attributes = [name for name in listed if name.rpartition("/")[2] == ".gitattributes"]
        if attributes:
            git("checkout-index", "-q", "-f", "--", *attributes)
        for path, file in change.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, root / path)
        git("add", "-f", "--", *change.files)
        prefix = f"{change.folder}/"
        inside = (name.removeprefix(prefix) for name in listed if name.startswith(prefix))
        strays = list(change.strays({name: None for name in inside if "/" not in name}))
        if strays:
            git("rm", "-q", "--cached", "--", *strays)
        tree = git("write-tree").strip()
        if tree == git("rev-parse", f"{parent_commit}^{{tree}}").strip():
            return None
        commit = git("commit-tree", tree, "-p", parent_commit, "-F", "-", feed=message).strip()
        objects = sorted(
            {file_sha256(file) for path, file in change.files.items() if path in in_lfs}
        )
        if objects:
            # Before the branch: a pointer without its object breaks every clone.
            git("lfs", "push", "--object-id", "origin", *objects)
        ref = f"refs/heads/{branch}"
        try:
            git("push", "-q", f"--force-with-lease={ref}:{old or ''}", "origin", f"{commit}:{ref}")
        except AdapterbotError:
            # Refused for a reason that git has many words for, or done and the answer lost: the
            # branch itself says which.
            now = git("ls-remote", "origin", ref).partition("\t")[0]
            if now not in (commit, old or ""):
                raise BranchMovedError from None
            if now != commit:
                raise
        return commit


def _git(
    root: Path, environment: Mapping[str, str], *arguments: str, feed: str | None = None
) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            input=feed,
            stdin=None if feed is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environment),
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise OurFailure("git was not found", fix="install git on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise GitHubFailure(
            f"git {arguments[0]} did not end within {_TIMEOUT} s", fix="run the job again"
        ) from error
    if done.returncode:
        raise _why(arguments[0], done.stderr)
    return done.stdout


def _why(command: str, told: str) -> AdapterbotError:
    """What git's "no" means for the person who has to act."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    said = " ".join(lines[-2:])[:500] or "no reason given"
    if any(words in told for words in _DENIED):
        return InputError(
            f"the token may not push: {said}",
            fix=f"add `permissions: {PERMISSION}` to the job",
        )
    return GitHubFailure(f"git {command} failed: {said}", fix="run the job again")


def _first(paths: frozenset[str]) -> str | None:
    return min(paths, default=None)
