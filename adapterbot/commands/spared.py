"""What a result may not replace: files that its command reads or keeps its state in, and any file
that has the name of another kind of ours."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.lock.environment import DEFAULT_NAME
from adapterbot.lock.pinned import ADAPTER_FILES
from adapterbot.lock.schema import SOUP_LOCK
from adapterbot.lock.training import SOUP_YAML

# These are found by name, so a result under one of them would be taken for something else.
_NAMES = {"adapterbot.yaml", SOUP_YAML, SOUP_LOCK, DEFAULT_NAME, *ADAPTER_FILES}


def spare(output: Path, *needed: Path | None, field: str, own: str | None = None) -> None:
    """Refuses an output that is one of these files, or lies in one of these folders, or has the
    name of another kind of file.

    Args:
        needed: None, and what is not there, stand for no file yet.
        field: the option that names the output.
        own: the name of this kind of file, where it has one.

    Raises:
        InputError: it is.
    """
    place = there.real(output)
    for path in needed:
        if path is None:
            continue
        if place == there.real(path) or _same(output, path):
            raise _refused(output, "is a file that the command itself needs", field)
        if place.is_relative_to(there.real(path)):
            raise InputError(
                f"lies inside {path}", file=str(output), field=field, fix="name a place beside it"
            )
    if output.name in _NAMES - {own}:
        raise _refused(output, "is the name of another kind of file", field)


def _refused(output: Path, why: str, field: str) -> InputError:
    return InputError(why, file=str(output), field=field, fix="name another file")


def _same(one: Path, other: Path) -> bool:
    """Also under two names: not every file system tells capitals apart."""
    try:
        return one.samefile(other)
    except OSError:
        return False
