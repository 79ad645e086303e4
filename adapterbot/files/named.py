"""A file that somebody names by hand: read whole and within bounds, or refused in one line."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import InputError


def read_named(path: Path, *, limit: int, fix: str, shown: str | None = None) -> bytes:
    """The bytes of a file.

    Args:
        limit: the most it may have.
        fix: what to name instead.
        shown: how errors name it; `path` itself when not given.

    Raises:
        InputError: it is missing, unreadable, or larger.
    """
    name = shown or str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot be read: {reason}", file=name, fix=fix) from error
    if len(content) > limit:
        raise InputError(f"is larger than {limit:,} bytes", file=name, fix=fix)
    return content
