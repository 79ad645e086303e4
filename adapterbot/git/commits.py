"""The commits of a repository: which one a name stands for, and how they lie to each other."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.yamlfile import nearest
from adapterbot.git.program import ask_remote, git, git_directory

# What was asked for, and neither tags nor the submodules beside it.
_FETCH = ("--no-tags", "--no-recurse-submodules")


def repository_root(start: Path) -> Path:
    """The top of the Git checkout that `start` lies in.

    Raises:
        InputError: it lies in none.
    """
    if shutil.which("git") is None:
        raise OurFailure("git was not found", fix="install git on this machine")
    try:
        return Path(git(start, "rev-parse", "--show-toplevel").decode().rstrip("\n"))
    except OurFailure as error:
        if "dubious ownership" in error.message:
            raise InputError(
                "belongs to another user, so Git does not read it",
                file=str(start),
                fix=f"run `git config --global --add safe.directory {start}`",
            ) from error
        raise InputError(
            "is not inside a Git checkout",
            file=str(start),
            fix="run in your repository; in a workflow, use actions/checkout first, without `path`",
        ) from error


def merge_base(repository: Path, left: str, right: str) -> str | None:
    """The commit from which two commits went separate ways; None where they never were one.

    Raises:
        InputError: this clone is shallow, and the remote does not tell the rest.
    """
    found = _merge_base(repository, left, right)
    boundaries = _boundaries(repository)
    if found or not boundaries.is_file():
        return found
    try:
        cut = boundaries.read_text(encoding="ascii").split()
        ask_remote(repository, "fetch", *_FETCH, "--unshallow", "origin", *cut)
    except OurFailure as error:
        raise InputError(
            "is shallow, so what the branch changed cannot be told from what its base changed "
            f"since: {error.message}",
            file="this clone",
            fix="set `fetch-depth: 0` in actions/checkout, or run `git fetch --unshallow`",
        ) from error
    return _merge_base(repository, left, right)


def is_sparse(repository: Path) -> bool:
    """Whether files that were committed may be left out of the working tree."""
    try:
        return git(repository, "config", "--type=bool", "core.sparseCheckout") == b"true\n"
    except OurFailure:  # the setting is nowhere
        return False


def _boundaries(repository: Path) -> Path:
    """The file in which Git keeps where a shallow clone was cut off; a whole one has none."""
    return git_directory(repository) / "shallow"


def _merge_base(repository: Path, left: str, right: str) -> str | None:
    try:
        return git(repository, "merge-base", left, right).decode().strip() or None
    except OurFailure:
        return None


def last_change(repository: Path, commit: str, path: str) -> str | None:
    """The commit up to `commit` that last changed a file; None where this clone cannot tell."""
    try:
        found = git(repository, "log", "-1", "--format=%H", commit, "--", f":(literal){path}")
    except OurFailure:
        return None
    return found.decode().strip() or None


def resolve_commit(repository: Path, ref: str, *, field: str | None = None) -> str:
    """The full commit SHA of `ref`: a name that is here, else a branch of `origin`, as a clone of
    one branch has the others; a commit is fetched from there when a shallow clone lacks it.

    Args:
        field: the option that named it, for an error to say.

    Raises:
        InputError: there is no such commit here or at `origin`.
    """
    if ref.startswith("-") or not ref:
        raise InputError(f"{ref!r} is not a ref", field=field, fix="name a branch, tag or commit")
    if found := _commit(repository, ref) or _commit(repository, f"refs/remotes/origin/{ref}"):
        return found
    if re.fullmatch(r"[0-9a-f]{40}", ref):
        # A clone that has its whole history would be cut by a depth.
        depth = ("--depth=1",) if _boundaries(repository).is_file() else ()
        with suppress(OurFailure):
            ask_remote(repository, "fetch", *_FETCH, *depth, "origin", ref)
        if found := _commit(repository, ref):
            return found
    raise InputError(
        f"{ref!r} is not in this checkout{nearest(ref, _names(repository))}",
        field=field,
        fix="correct the name, or fetch it: `fetch-depth: 0` in actions/checkout, or `git fetch`",
    )


def _commit(repository: Path, ref: str) -> str | None:
    """The commit that a name stands for in this clone; None where it stands for none."""
    asked = ("rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    try:
        return git(repository, *asked).decode().strip()
    except OurFailure:
        return None


def _names(repository: Path) -> list[str]:
    """Branches and tags, as one may name them."""
    kinds = ("refs/heads", "refs/remotes", "refs/tags")
    found = git(repository, "for-each-ref", "--format=%(refname:short)", *kinds)
    return found.decode(errors="replace").split()


def ignored_files(repository: Path, folder: str) -> tuple[str, ...]:
    """The names of the files right in a folder that Git ignores, so that no commit holds them.

    Args:
        folder: from the root, normalised.

    Raises:
        OurFailure: Git is not installed, or failed.
    """
    asked = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", folder or ".")
    listed = os.fsdecode(git(repository, "--literal-pathspecs", *asked)).split("\0")
    prefix = f"{folder}/" if folder else ""
    names = (path.removeprefix(prefix) for path in listed if path.startswith(prefix))
    return tuple(name for name in names if name and "/" not in name)
