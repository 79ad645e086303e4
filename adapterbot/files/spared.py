"""What a command reads, or keeps its state in, is nothing that its result may replace."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.files import there


def spare(output: Path, *needed: Path | None, field: str) -> None:
    """Refuses an output that is one of these files, or lies in one of these folders.

    Args:
        needed: None, and what is not there, stand for no file yet.
        field: the option that names the output.

    Raises:
        InputError: it is.
    """
    place = there.real(output)
    for path in needed:
        if path is None:
            continue
        if place == there.real(path) or _same(output, path):
            raise InputError(
                "is a file that the command itself needs",
                file=str(output),
                field=field,
                fix="name another file",
            )
        if place.is_relative_to(there.real(path)):
            raise InputError(
                f"lies inside {path}", file=str(output), field=field, fix="name a place beside it"
            )


def _same(one: Path, other: Path) -> bool:
    """Also under two names: not every file system tells capitals apart."""
    try:
        return one.samefile(other)
    except OSError:
        return False
