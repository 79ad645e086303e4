"""Rows of a dataset, read from JSONL, CSV or Parquet, with the place each one came from.

Only the reading: what a row means is for `samples`. Rows are bounded in size and number, since a
data file of the base ref is read on every pull request.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from adapterbot.errors import InputError
from adapterbot.files import jsonl, parquet
from adapterbot.files.strict_json import parse_json
from adapterbot.files.tree import Tree

FILE_LIMIT = 256 * 1024 * 1024
LINE_LIMIT = 1024 * 1024
ROW_LIMIT = 200_000


@dataclass(frozen=True)
class Row:
    """One row. `line` is 1-based; for Parquet it is the number of the row."""

    file: str
    line: int
    values: Mapping[str, JsonValue]

    def error(self, message: str, *, fix: str) -> InputError:
        """An error that points at this row."""
        return InputError(message, file=self.file, field=f"line {self.line}", fix=fix)


def read_rows(tree: Tree, path: str) -> tuple[Row, ...]:
    """Every row of one file, in file order.

    Raises:
        InputError: an unknown suffix, or a file that is empty, too large, not UTF-8 or malformed.
    """
    reader = _READERS.get(PurePosixPath(path).suffix.lower())
    if reader is None:
        raise InputError(
            f"is not a data file we read ({', '.join(sorted(_READERS))})",
            file=path,
            fix="convert it to JSONL",
        )
    rows: list[Row] = []
    for line, values in reader(path, tree.read(path, limit=FILE_LIMIT)):
        if len(rows) >= ROW_LIMIT:
            raise InputError(f"holds more than {ROW_LIMIT:,} rows", file=path, fix="sample it down")
        rows.append(Row(path, line, values))
    if not rows:
        raise InputError("holds no rows", file=path, fix="add samples to it")
    return tuple(rows)


def _jsonl(path: str, content: bytes) -> Iterator[tuple[int, Mapping[str, JsonValue]]]:
    shape = '{"prompt": …, "expected": …}'
    return jsonl.objects(path, io.BytesIO(content), limit=LINE_LIMIT, shape=shape)


def _csv(path: str, content: bytes) -> Iterator[tuple[int, Mapping[str, JsonValue]]]:
    for line, raw in jsonl.lines(path, io.BytesIO(content), limit=LINE_LIMIT):
        jsonl.utf8(path, line, raw)
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(header):
            raise Row(path, reader.line_num, {}).error(
                "has an empty or repeated column name", fix="name each column once"
            )
        for cells in filter(None, reader):
            if len(cells) != len(header):
                raise Row(path, reader.line_num, {}).error(
                    f"has {len(cells)} cells where the header has {len(header)}",
                    fix="quote cells that hold commas",
                )
            yield reader.line_num, dict(zip(header, map(_cell, cells), strict=True))
    except csv.Error as error:
        raise Row(path, reader.line_num, {}).error(
            f"is not CSV: {error}", fix="quote the cell, or use JSONL"
        ) from error


def _cell(cell: str) -> JsonValue:
    """A CSV cell is text, unless it holds a list or an object (choices, messages)."""
    if cell[:1] not in ("[", "{"):
        return cell
    try:
        return parse_json(cell)
    except ValueError:
        return cell


def _parquet(path: str, content: bytes) -> Iterator[tuple[int, Mapping[str, JsonValue]]]:
    """Dates become ISO 8601, which is how they would read in JSONL."""
    stream = io.BytesIO(content)
    found = parquet.rows(path, stream, unspoken="iso", limit=FILE_LIMIT, row_limit=LINE_LIMIT)
    for number, text in enumerate(found, 1):
        try:
            values = parse_json(text.decode())
        except ValueError as error:
            raise Row(path, number, {}).error(
                f"is not a row we can use: {error}", fix="use plain columns"
            ) from error
        assert isinstance(values, dict)  # noqa: S101 it is a row
        yield number, values


_Reader = Callable[[str, bytes], Iterator[tuple[int, Mapping[str, JsonValue]]]]
_READERS: Mapping[str, _Reader] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
