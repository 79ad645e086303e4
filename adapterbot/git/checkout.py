"""A checkout: its root, and which of its files are in no commit or not on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.git.program import git, no_git


def repository_root(start: Path) -> Path:
    """The top of the Git checkout that `start` lies in.

    Raises:
        InputError: it lies in none, or in one that is another user's.
        OurFailure: Git is not installed.
    """
    if shutil.which("git") is None:
        raise no_git()
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


def is_sparse(repository: Path) -> bool:
    """Whether files that were committed may be left out of the working tree."""
    try:
        return git(repository, "config", "--type=bool", "core.sparseCheckout") == b"true\n"
    except OurFailure:  # the setting is nowhere
        return False


def ignored_names(repository: Path) -> frozenset[str]:
    """What Git ignores of a checkout: files, and wholly ignored folders as `folder/`.

    Raises:
        OurFailure: Git is not installed, or failed.
    """
    asked = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    return frozenset(os.fsdecode(git(repository, *asked)).split("\0")) - {""}


def ignored_files(repository: Path, folder: str) -> tuple[str, ...]:
    """The files below a folder that Git ignores, so that no commit holds them, as seen from there.

    Args:
        folder: from the root, normalised.

    Raises:
        OurFailure: Git is not installed, or failed.
    """
    asked = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", folder or ".")
    listed = os.fsdecode(git(repository, "--literal-pathspecs", *asked)).split("\0")
    prefix = f"{folder}/" if folder else ""
    return tuple(path.removeprefix(prefix) for path in listed if path and path.startswith(prefix))
