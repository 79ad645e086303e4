"""A JSON file that somebody else wrote, read strictly and within bounds."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.files.named import read_named
from adapterbot.files.strict_json import parse_json

# Room for the most that a document holds, 256 samples of three texts, escaped.
MAX_BYTES = 64 * 1024 * 1024


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        InputError: it is missing, unreadable, too large, or not UTF-8.
    """
    content = read_named(path, limit=MAX_BYTES, fix="check the path, or give it fewer samples")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 at byte {error.start:,}", file=str(path), fix="save it as UTF-8"
        ) from error


def parse(text: str, file: str) -> JsonValue:
    """Strict JSON, but for halves of surrogate pairs (see `whole`).

    Raises:
        InputError: it is not JSON, has a key twice or a number that is none.
    """
    try:
        return parse_json(text, halves=True)
    except ValueError as error:
        reason = str(error).replace("\n", " ")[:200]
        raise InputError(
            f"is not JSON: {reason}",
            file=file,
            fix="write strict JSON, without what was not measured",
        ) from error


def whole(text: str) -> str:
    """`text` with every half of a surrogate pair replaced by U+FFFD, as a model may emit them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
