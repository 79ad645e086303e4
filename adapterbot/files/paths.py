"""Paths of a repository as text: POSIX, relative to its root, and never out of it. Pure.

A pull request chooses these names; what is behind them is `tree`'s.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from adapterbot.errors import InputError

_CONTROL = re.compile(r"[\x00-\x1f]")
_ODD = frozenset({"", ".", ".."})
_INSTALLED = frozenset({"node_modules", "site-packages", "venv", "__pycache__"})


def normalise(path: str, *, field: str | None = None, file: str | None = None) -> str:
    """A repository-relative POSIX path without `.` and `..`; `""` is the root.

    Args:
        field: where the path is written, for an error to say.
        file: likewise the file that it is written in.

    Raises:
        InputError: for an absolute path, one that leaves the tree, or one with a NUL or newline.
    """
    if _CONTROL.search(path):
        raise InputError(
            "path holds a control character", file=repr(path), field=field, fix="rename it"
        )
    if path.startswith("/"):
        raise InputError(
            f"{path} is absolute" if file else "path is absolute",
            file=file or path,
            field=field,
            fix="write it relative to the repository",
        )
    parts = path.split("/")
    if _ODD.isdisjoint(parts):
        return path  # as nearly all are: a tree is asked about hundreds of thousands
    parts = []
    for part in PurePosixPath(path).parts:
        if part == "..":
            if not parts:
                raise InputError(
                    f"{path} leaves the repository" if file else "path leaves the repository",
                    file=file or path,
                    field=field,
                    fix="keep the file inside the repository",
                )
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def join(directory: str, path: str, *, field: str | None = None, file: str | None = None) -> str:
    """`path` as seen from `directory`, normalised.

    Raises:
        InputError: as `normalise`.
    """
    if path.startswith("/"):
        return normalise(path, field=field, file=file)
    return normalise(f"{directory}/{path}" if directory else path, field=field, file=file)


def check_text(path: str) -> None:
    """Refuses a name whose bytes are not UTF-8: Git allows them, and no report can hold one.

    Raises:
        InputError: it is one.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "has a name that is no text",
            file=path.encode(errors="backslashreplace").decode(),
            fix="rename it",
        ) from error


def is_hidden(folder: str) -> bool:
    """Whether a search passes a folder over."""
    return folder.startswith(".") or folder in _INSTALLED
