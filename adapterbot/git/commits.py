"""The commits of a repository: which one a name stands for, and how they lie to each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.yamlfile import nearest
from adapterbot.git.program import ask_remote, git, git_directory

# What was asked for, and neither tags nor the submodules beside it.
_FETCH = ("--no-tags", "--no-recurse-submodules")


def merge_bases(repository: Path, left: str, right: str) -> tuple[str, ...]:
    """The newest commits that two commits share: one where they went separate ways; none where they
    never were one; several where each side merged what the other had at the time (a criss-cross).

    Raises:
        InputError: this clone is shallow, and the remote does not tell the rest.
    """
    found = _merge_bases(repository, left, right)
    boundaries = _boundaries(repository)
    if not boundaries.is_file():
        return found
    cut = boundaries.read_text(encoding="ascii").split()
    if found and not _hides_a_newer(repository, cut, found, left, right):
        return found
    try:
        ask_remote(repository, "fetch", *_FETCH, "--unshallow", "origin", *cut)
    except OurFailure as error:
        raise InputError(
            "is shallow, so what the branch changed cannot be told from what its base changed "
            f"since: {error.message}",
            file="this clone",
            fix="set `fetch-depth: 0` in actions/checkout, or run `git fetch --unshallow`",
        ) from error
    return _merge_bases(repository, left, right)


def _hides_a_newer(
    repository: Path, cut: Sequence[str], found: Sequence[str], left: str, right: str
) -> bool:
    """Whether a newer commit of both may lie behind the point where this clone was cut off."""
    if {left, right} & set(found):
        return False
    since = git(repository, "rev-list", left, right, "--not", *found).decode().split()
    return not set(cut).isdisjoint(since)


def _boundaries(repository: Path) -> Path:
    """The file in which Git keeps where a shallow clone was cut off; a whole one has none."""
    return git_directory(repository) / "shallow"


def _merge_bases(repository: Path, left: str, right: str) -> tuple[str, ...]:
    return tuple((_told(repository, "merge-base", "--all", left, right) or "").split())


def _told(repository: Path, *asked: str) -> str | None:
    """The name that Git gives as its answer; None where it fails, or says nothing."""
    try:
        return git(repository, *asked).decode().strip() or None
    except OurFailure:
        return None


def last_change(repository: Path, commit: str, path: str) -> str | None:
    """The commit up to `commit` that last changed a file; None where this clone cannot tell."""
    return _told(repository, "log", "-1", "--format=%H", commit, "--", f":(literal){path}")


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
    _refuse_ambiguous(repository, ref, field)
    if found := commit_of(repository, ref) or commit_of(repository, f"refs/remotes/origin/{ref}"):
        return found
    if re.fullmatch(r"[0-9a-f]{40}", ref):
        # A clone that has its whole history would be cut by a depth.
        depth = ("--depth=1",) if _boundaries(repository).is_file() else ()
        with suppress(OurFailure):
            ask_remote(repository, "fetch", *_FETCH, *depth, "origin", ref)
        if found := commit_of(repository, ref):
            return found
    raise InputError(
        f"{ref!r} is not in this checkout{nearest(ref, _names(repository))}",
        field=field,
        fix="correct the name, or fetch it: `fetch-depth: 0` in actions/checkout, or `git fetch`",
    )


def _refuse_ambiguous(repository: Path, ref: str, field: str | None) -> None:
    """Refuses a name that a tag shares with a branch: Git would take the tag, which anybody who may
    push can make."""
    name = _name(ref)
    if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
        return  # to Git that is the commit, whatever else has this name
    tag = commit_of(repository, f"refs/tags/{name}")
    if not tag:
        return
    for place in ("heads", "remotes", "remotes/origin"):
        branch = commit_of(repository, f"refs/{place}/{name}")
        if branch and branch != tag:
            raise InputError(
                f"{ref!r} is both a branch and a tag",
                field=field,
                fix=f"write refs/{place}/{name} or refs/tags/{name}, or delete the tag",
            )


def commit_of(repository: Path, ref: str) -> str | None:
    """The commit that a name stands for in this clone, or None. A full one (`refs/heads/main`) is
    never a tag of that name."""
    name = _name(ref)
    if name.startswith("refs/") and not _told(repository, "show-ref", "--verify", "--", name):
        return None
    return _told(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")


def _name(ref: str) -> str:
    """A ref without the steps from there (`main~1`, `main@{u}`)."""
    return re.split(r"[~^:]|@\{", ref, maxsplit=1)[0]


def _names(repository: Path) -> list[str]:
    """Branches and tags, as one may name them."""
    kinds = ("refs/heads", "refs/remotes", "refs/tags")
    found = git(repository, "for-each-ref", "--format=%(refname:short)", *kinds)
    return found.decode(errors="replace").split()
