"""Rows of a dataset, read from JSONL, CSV or Parquet, with the place each one came from.

Only the reading: what a row means is for `samples`. Rows are bounded in size and number, since a
data file of the base ref is read on every pull request.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from adapterbot import jsonl
from adapterbot.errors import InputError
from adapterbot.strict_json import parse_json
from adapterbot.tree import Tree

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
    header: list[str] | None = None
    try:
        for cells in reader:
            where = Row(path, reader.line_num, {})
            if header is None:
                header = cells
                if len(set(cells)) != len(cells) or not all(cells):
                    raise where.error(
                        "has an empty or repeated column name", fix="name each column once"
                    )
            elif cells:
                if len(cells) != len(header):
                    raise where.error(
                        f"has {len(cells)} cells where the header has {len(header)}",
                        fix="quote cells that hold commas",
                    )
                yield (
                    reader.line_num,
                    {name: _cell(cell) for name, cell in zip(header, cells, strict=True)},
                )
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
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise InputError(
            "needs pyarrow to be read",
            file=path,
            fix="pip install 'adapterbot[parquet]', or convert it to JSONL",
        ) from error
    try:
        table = parquet.ParquetFile(io.BytesIO(content))
        if table.metadata.num_rows > ROW_LIMIT:
            raise InputError(f"holds more than {ROW_LIMIT:,} rows", file=path, fix="sample it down")
        batches = list(table.iter_batches())
    except (arrow.ArrowException, OSError) as error:
        raise InputError("is not a Parquet file", file=path, fix="write it again") from error
    line = 0
    for batch in batches:
        for values in batch.to_pylist():
            line += 1
            yield line, _plain(Row(path, line, {}), values)


def _plain(where: Row, values: Mapping[str, object]) -> Mapping[str, JsonValue]:
    """A Parquet row as JSON; dates become ISO 8601, which is how they would read in JSONL."""

    def default(value: object) -> str:
        isoformat = getattr(value, "isoformat", None)
        if isoformat is None:
            raise ValueError(f"it holds a {type(value).__name__}")
        return str(isoformat())

    try:
        text = json.dumps(values, default=default, ensure_ascii=False)
        if len(text) > LINE_LIMIT:
            raise ValueError(f"it has more than {LINE_LIMIT:,} characters")
        found = parse_json(text)
    except ValueError as error:
        raise where.error(f"is not a row we can use: {error}", fix="use plain columns") from error
    if not isinstance(found, dict):
        raise where.error("is not a row", fix="use plain columns")
    return found


_Reader = Callable[[str, bytes], Iterator[tuple[int, Mapping[str, JsonValue]]]]
_READERS: Mapping[str, _Reader] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
