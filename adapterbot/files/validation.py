"""What pydantic found wrong, as the one line that a user gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adapterbot import __version__
from adapterbot.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


_SHOWN = 40
# By pydantic's names of kinds of errors, where its own words are those of Python or of a parser.
_WORDS = {
    "bool_parsing": "is {shown}, neither true nor false",
    "bool_type": "is {shown}, neither true nor false",
    "dict_type": "is {shown}, not a mapping of fields",
    "enum": "is {shown}; it must be {expected}",
    "extra_forbidden": "is not a field we know",
    "float_parsing": "is {shown}, not a number",
    "float_type": "is {shown}, not a number",
    "greater_than": "is {shown}; it must be more than {gt:g}",
    "greater_than_equal": "is {shown}; it must be at least {ge:g}",
    "int_from_float": "is {shown}, not a whole number",
    "int_parsing": "is {shown}, not a whole number",
    "int_type": "is {shown}, not a whole number",
    "less_than": "is {shown}; it must be less than {lt:g}",
    "less_than_equal": "is {shown}; it must be at most {le:g}",
    "list_type": "is {shown}, not a list",
    "literal_error": "is {shown}; it must be {expected}",
    "missing": "is missing",
    "model_attributes_type": "is {shown}, not a mapping of fields",
    "model_type": "is {shown}, not a mapping of fields",
    "string_pattern_mismatch": "is {shown}, which does not match {pattern}",
    "string_too_short": "is shorter than {min_length} characters",
    "string_type": "is {shown}, not text",
    "too_short": "has {actual_length} entries; it must have at least {min_length}",
    "tuple_type": "is {shown}, not a list",
}


def in_words(problem: ErrorDetails) -> str:
    """What is wrong with a field; behind the field's name it is a sentence."""
    given, context = problem.get("input"), problem.get("ctx", {})
    kind = problem["type"]
    if kind in {"too_short", "string_too_short"} and not given:
        return "is empty"
    if kind in _WORDS:
        return _WORDS[kind].format(shown=_shown(given), **context)
    message = problem["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _shown(given: object) -> str:
    """As it was written, more or less; what holds other values by what it is."""
    if given is None or given == "":
        return "empty"
    if isinstance(given, Mapping):
        return "a mapping of fields"
    if isinstance(given, list | tuple | set):
        return "a list"
    text = str(given).lower() if isinstance(given, bool) else repr(given)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first thing that is wrong: its field, with dots between, and what it is."""
    first = error.errors(include_url=False)[0]
    return ".".join(map(str, first["loc"])), in_words(first)


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
