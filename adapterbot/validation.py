"""What pydantic found wrong, as the one line that a user gets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from adapterbot import __version__
from adapterbot.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong: its field, with dots between, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"]
    return ".".join(map(str, first["loc"])), message[:1].lower() + message[1:]


# A file of ours says early on who wrote it; a stranger's may say anything that looks like one.
_WRITER = re.compile(rb'"tool": ?"adapterbot ([0-9][0-9A-Za-z.+]{0,30})"')
_HEAD = 1000


def of_another_version(content: bytes, *, file: str, fix: str) -> InputError | None:
    """Why a file of ours that cannot be read cannot: another version wrote it. None where it says
    no such thing."""
    writer = _WRITER.search(content[:_HEAD])
    version = writer[1].decode() if writer else __version__
    if version == __version__:
        return None
    return InputError(
        f"was written by adapterbot {version}, which this one, {__version__}, cannot read",
        file=file,
        fix=fix,
    )


def bad_input(error: ValidationError, *, file: str, fix: str) -> InputError:
    """The first thing that is wrong with a file."""
    field, message = first_problem(error)
    return InputError(message, file=file, field=field or None, fix=fix)
