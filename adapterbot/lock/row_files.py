"""Rows of training data as they are written, streamed from JSONL, JSON, CSV, Parquet or text.

Only the reading, a row at a time; what makes two rows the same is for `rows`. Nothing here judges a
row: one that is not JSON is its own text, so that two versions of any data can be compared.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from adapterbot.errors import InputError
from adapterbot.files import parquet
from adapterbot.files.jsonl import lines
from adapterbot.files.strict_json import DuplicateKeyError, unique_object
from adapterbot.files.tree import Tree

ROW_LIMIT = 16 * 1024 * 1024
DOCUMENT_LIMIT = 256 * 1024 * 1024
PARQUET_LIMIT = 16 * 1024 * 1024 * 1024  # uncompressed


class Row(NamedTuple):
    """One row. `line` is 1-based; for Parquet and JSON it is the number of the row. `content` is
    JSON text where the row is an object or a list, else the text itself."""

    file: str
    line: int
    content: bytes


@dataclass(frozen=True)
class RowFile:
    """The rows of one file, which may be gone through again and again.

    `digest` is the SHA-256 of the file: two files that share it share every row.
    """

    name: str
    digest: str
    read: Callable[[], Iterator[Row]]

    def __iter__(self) -> Iterator[Row]:
        return self.read()


Rows = Mapping[str, RowFile]
"""The files of a dataset, by path."""


def read_rows(tree: Tree, *paths: str) -> Rows:
    """The data files at `paths` (files, or folders of them) in a tree, to be read when asked.

    Raises:
        InputError: a path does not exist, or a file is of a kind that has no rows.
    """
    found: dict[str, RowFile] = {}
    for path in paths:
        names = tree.files(path) if tree.has(path) else ()
        if not names:
            raise InputError(
                f"does not exist in {tree.label}", file=path, fix="name the data of the run"
            )
        found |= rows_of(tree, {name: tree.sha256(name) for name in names})
    return found


def rows_of(tree: Tree, digests: Mapping[str, str]) -> Rows:
    """As `read_rows`, of files whose SHA-256 is known: nothing is read before rows are asked for.

    Raises:
        InputError: a file is of a kind that has no rows.
    """
    return {name: _row_file(tree, name, digest) for name, digest in digests.items()}


def _row_file(tree: Tree, name: str, digest: str) -> RowFile:
    reader = _READERS.get(PurePosixPath(name).suffix.lower())
    if reader is None:
        raise InputError(
            f"is not a file whose rows we read ({', '.join(_READERS)})",
            file=name,
            fix="convert it to JSONL",
        )

    def read() -> Iterator[Row]:
        # Gigabytes, only to say which rows moved.
        with tree.open(name, fetch=False) as stream:
            for line, content in reader(name, stream):
                yield Row(name, line, content)

    return RowFile(name, digest, read)


def _lines(name: str, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    return lines(name, stream, limit=ROW_LIMIT)


def _json(name: str, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    content = stream.read(DOCUMENT_LIMIT + 1)
    if len(content) > DOCUMENT_LIMIT:
        raise InputError(
            f"is larger than the {DOCUMENT_LIMIT:,} bytes we read", file=name, fix="use JSONL"
        )
    try:
        found = json.loads(content, object_pairs_hook=unique_object)
        rows = [_dumped(row) for row in (found if isinstance(found, list) else [found])]
    except DuplicateKeyError as error:
        raise InputError(
            f"has the key {error.key!r} twice", file=name, fix="keep one of them"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError("is not JSON", file=name, fix="use JSONL, a row per line") from error
    yield from enumerate(rows, 1)


def _csv(name: str, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="backslashreplace", newline="")
    reader = csv.reader(_bounded(name, text))
    try:
        header = next(reader, [])
        for cells in filter(None, reader):
            row: dict[str, object] = dict(zip(header, cells, strict=False))
            if len(cells) > len(header):
                row[""] = cells[len(header) :]
            yield reader.line_num, _dumped(row)
    except csv.Error as error:
        raise InputError(
            f"is not CSV: {error}",
            file=name,
            field=f"line {reader.line_num}",
            fix="quote the cell, or use JSONL",
        ) from error
    finally:
        text.detach()  # the stream is its owner's to close


def _bounded(name: str, text: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a text, none of which is longer than a row may be."""
    for number in count(1):
        line = text.readline(ROW_LIMIT + 1)
        if len(line) > ROW_LIMIT:
            raise InputError(
                f"is longer than the {ROW_LIMIT:,} characters we read",
                file=name,
                field=f"line {number}",
                fix="write one row per line, or shorten it",
            )
        if not line:
            return
        yield line


def _parquet(name: str, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    found = parquet.rows(name, stream, unspoken="repr", limit=PARQUET_LIMIT, row_limit=ROW_LIMIT)
    return enumerate(found, 1)


def _dumped(row: object) -> bytes:
    if isinstance(row, str):
        return row.encode("utf-8", "backslashreplace")
    # What JSON has no word for (dates, bytes) is compared by how Python writes it.
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=repr)
    return text.encode("utf-8", "backslashreplace")


_READERS: Mapping[str, Callable[[str, BinaryIO], Iterator[tuple[int, bytes]]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _lines,
}
