"""What pydantic found wrong, as the one line that a user gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong: its field, with dots between, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"]
    return ".".join(map(str, first["loc"])), message[:1].lower() + message[1:]


def bad_input(error: ValidationError, *, file: str, fix: str) -> InputError:
    """The first thing that is wrong with a file."""
    field, message = first_problem(error)
    return InputError(message, file=file, field=field or None, fix=fix)
