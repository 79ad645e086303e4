"""Where a command leaves its results, and finds those that an earlier one left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.files import atomic


def out_directory(given: Path | None, environment: Mapping[str, str]) -> Path:
    """Where results go: as asked, the runner's temporary folder, or the checkout's `.adapterbot/`,
    never a folder inside it that one happens to be in. Whether it can be written is tried before
    the work begins.

    Raises:
        InputError, OurFailure: it cannot be written.
    """
    if given:
        if environment.get("GITHUB_ACTIONS") == "true":
            _refuse_link(given)
        atomic.try_folder(given, field="--out")
        return given
    temporary = environment.get("RUNNER_TEMP")
    # A runner's is not tried here: where its disk is full, the comment has to say so.
    return Path(temporary) / "adapterbot" if temporary else own_folder(around(Path.cwd()))


def _refuse_link(given: Path) -> None:
    """Refuses a folder in the checkout that is reached through a link: the link is the pull
    request's, and would have us write elsewhere."""
    root = around(Path.cwd())
    place = Path(os.path.normpath(Path.cwd() / given))
    for folder in (place, *place.parents):
        if folder.is_relative_to(root) and folder != root and folder.is_symlink():
            raise InputError(
                "is a symbolic link", file=str(folder), field="--out", fix="name another folder"
            )


def checkout_around(folder: Path) -> Path | None:
    """The top of the Git checkout that a folder lies in, found by `.git` alone: asking Git takes as
    long as some commands do."""
    return next((top for top in (folder, *folder.parents) if (top / ".git").exists()), None)


def around(folder: Path) -> Path:
    """The checkout around a folder; the folder itself where there is none."""
    return checkout_around(folder) or folder


def left_here(given: Path, default: Path) -> Path:
    """A file as it was named; by default the one that an earlier command left in the checkout's
    `.adapterbot/`."""
    if given != default or given.exists():
        return given
    return around(Path.cwd()) / default


def own_folder(within: Path) -> Path:
    """`.adapterbot/`, for results for which no place was named. Git ignores it, so `git add --all`
    adds none of them.

    Raises:
        InputError: it cannot be written, or there is a link in it. The checkout may be a stranger's
            branch, whose links would have us write elsewhere.
    """
    folder = within / ".adapterbot"
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise InputError("is a symbolic link", file=str(path), fix="remove it")
    ignore = folder / ".gitignore"
    try:
        if not ignore.exists():
            atomic.write_text(ignore, "*\n")
        atomic.try_folder(folder)
    except InputError as error:
        fix = "name another folder: --out"
        raise InputError(error.message, file=str(folder), fix=fix) from error
    return folder
