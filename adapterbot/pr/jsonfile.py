"""A JSON file that somebody else wrote, read strictly and within bounds."""

from __future__ import annotations

import json
from pathlib import Path

from adapterbot.errors import InputError

# Room for the most that a document holds, 256 samples of three texts, escaped.
MAX_BYTES = 64 * 1024 * 1024


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The file's bytes.

    Raises:
        InputError: it is missing, unreadable or larger than `limit`.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or type(error).__name__}",
            file=str(path),
            fix="check the path",
        ) from error
    if len(content) > limit:
        raise InputError(
            f"is larger than {limit:,} bytes", file=str(path), fix="give it fewer samples"
        )
    return content


def read_text(path: Path) -> str:
    """The file's text.

    Raises:
        InputError: as `read_bytes`, and when it is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 at byte {error.start:,}", file=str(path), fix="save it as UTF-8"
        ) from error


def parse(text: str, file: str) -> object:
    """Strict JSON; text in it has no half of a surrogate pair left.

    Raises:
        InputError: it is not JSON, has a key twice or a number that is none.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise InputError(
            "is nested too deeply", file=file, fix="write what `adapterbot` or Soup writes"
        ) from error
    except ValueError as error:
        reason = str(error).replace("\n", " ")[:200]
        raise InputError(f"is not JSON: {reason}", file=file, fix="write strict JSON") from error
    return value


def whole(text: str) -> str:
    """`text` with every half of a surrogate pair replaced by U+FFFD, as a model may emit them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        found[key] = value
    return found


def _no_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no number; leave out what was not measured")
