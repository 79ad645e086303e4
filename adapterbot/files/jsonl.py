"""JSON Lines as people write them: one value a line, blank lines passed over, every error with its
line. What a row means is for whoever asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.files.strict_json import parse_json

_BOM = b"\xef\xbb\xbf"


def lines(name: str, stream: BinaryIO, *, limit: int) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, without the space around them, each with its 1-based number.

    Args:
        name: of the file, for errors.
        limit: the most bytes of a line; no more than that are ever held.

    Raises:
        InputError: a line is longer.
    """
    number = 0
    while line := stream.readline(limit + 2):
        number += 1
        if len(line.rstrip(b"\r\n")) > limit:
            raise InputError(
                f"is longer than the {limit:,} bytes we read",
                file=name,
                field=f"line {number}",
                fix="write one row per line, or shorten it",
            )
        content = (line.removeprefix(_BOM) if number == 1 else line).strip()
        if content:
            yield number, content


def objects(
    name: str, stream: BinaryIO, *, limit: int, shape: str, infinite: bool = False
) -> Iterator[tuple[int, dict[str, JsonValue]]]:
    """The object on each line, as strict JSON.

    Args:
        name: of the file, for errors.
        limit: the most bytes of a line.
        shape: what a row looks like, to say to who wrote something else.
        infinite: as of `parse_json`.

    Raises:
        InputError: a line is too long, not UTF-8, not JSON, or no object.
    """
    for number, line in lines(name, stream, limit=limit):
        where = f"line {number}"
        try:
            value = parse_json(utf8(name, number, line), infinite=infinite)
        except ValueError as error:
            reason = str(error).split(": line ", maxsplit=1)[0]
            raise InputError(
                f"is not JSON: {reason}", file=name, field=where, fix=f"write {shape} on it"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                "is not a JSON object", file=name, field=where, fix=f"write {shape} on it"
            )
        yield number, value


def utf8(name: str, number: int, line: bytes) -> str:
    """A line as text.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            "is not UTF-8 text", file=name, field=f"line {number}", fix="save it as UTF-8"
        ) from error
