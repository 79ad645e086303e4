"""Rows of a Parquet file, read within bounds by a process of its own.

A few bytes of Parquet can stand for any number of rows' values: pages are compressed, one value of
a dictionary may fill every row, and the nulls of a list are counted rather than written. Nor does
pyarrow hold what a file declares of its sizes against what is in it: it allocates what each page
asks for. So what is declared is looked at first, what comes is counted, and what does the reading
has a limit of memory, and may die of the file without us.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Literal, cast

from adapterbot import beside
from adapterbot.errors import AdapterbotError, InputError, OurFailure
from adapterbot.files import jsonl

MEMORY = 2 << 30
_BATCH, _BATCH_BYTES = 256, 8 << 20
_AHEAD = 1 << 20  # bytes of each column
# A linear algebra library would reserve memory for every core.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# A file may have its reader die of other signals, but these are sent: by the kernel, where memory
# ends, or by a person.
_ENDED_BY_OTHERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Unspoken = Literal["repr", "iso"]
"""What JSON has no word for: as Python writes it, or dates as ISO 8601 and nothing else."""


def rows(
    name: str, stream: BinaryIO, *, unspoken: Unspoken, limit: int, row_limit: int
) -> Generator[bytes]:
    """Each row as a JSON object; of `repr` with its columns sorted.

    Args:
        name: of the file, for errors.
        stream: its bytes, from the first on.
        limit: the most bytes of all rows.
        row_limit: the most bytes of one.

    Raises:
        InputError: pyarrow is not installed, the file is none of Parquet's, holds more than the
            limits, or what Python has no value for.
        OurFailure: pyarrow does not load, or the process cannot be started or was ended.
    """
    with _file(stream) as file, _reader(file, unspoken, limit) as process:
        try:
            yield from _told(name, process, limit, row_limit)
        finally:
            process.kill()


@contextmanager
def _file(stream: BinaryIO) -> Iterator[BinaryIO]:
    """A stream as a file on disk, which another process can read anywhere."""
    if isinstance(stream, io.BufferedReader) and stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as spooled:
        shutil.copyfileobj(stream, spooled)
        spooled.seek(0)
        yield spooled


def _reader(file: BinaryIO, unspoken: Unspoken, limit: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            beside.command(__name__, "main", unspoken, str(limit), str(MEMORY)),
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=beside.environment() | _ONE_THREAD,
        )
    except OSError as error:
        raise OurFailure(
            f"the process that reads Parquet could not be started: {error.strerror}",
            fix="allow more processes and memory, or convert it to JSONL",
        ) from error


def _told(
    name: str, process: subprocess.Popen[bytes], limit: int, row_limit: int
) -> Iterator[bytes]:
    total, held = 0, b""
    for number, line in jsonl.lines(name, cast("BinaryIO", process.stdout), limit=row_limit):
        if held:
            yield held
        if not line.startswith(b"{"):
            word, _, what = line.decode().partition(" ")
            if word == "end":
                return
            raise _refusal(name, word, what, number, limit)
        total += len(line)
        if total > limit:
            raise _refusal(name, "large", "", number, limit)
        held = line  # until another comes: the last of a reader that dies may be cut short
    how = process.wait()
    if how > 0 or -how in _ENDED_BY_OTHERS:
        raise OurFailure(
            f"reading it was ended by {f'signal {-how}' if how < 0 else f'an error (exit {how})'}",
            file=name,
            fix="see whether the machine ran out of memory, and run again",
        )
    raise InputError(
        f"is not a Parquet file: reading it ended with signal {-how}",
        file=name,
        fix="write it again",
    )


def _refusal(name: str, word: str, what: str, number: int, limit: int) -> AdapterbotError:
    """What the reader's last word says, which stands where row `number` would."""
    if word == "unloaded":
        return OurFailure(
            f"pyarrow does not load: {what}", file=name, fix="pip install 'adapterbot[parquet]'"
        )
    message, fix = {
        "absent": (
            "needs pyarrow to be read",
            "pip install 'adapterbot[parquet]', or convert it to JSONL",
        ),
        "broken": ("is not a Parquet file", "write it again"),
        "large": (
            f"holds more than the {limit:,} bytes that we read, uncompressed",
            "sample it down, or split it",
        ),
        "memory": (
            f"takes more than the {MEMORY:,} bytes of memory that we read it in",
            "write smaller values, or convert it to JSONL",
        ),
        "row": (f"is not a row we can use: it holds a {what}", "use plain columns"),
    }.get(word, ("holds what Python has no value for", "convert it to JSONL"))
    place = {"row": f"line {number}", "value": f"row {number} or one of those after it"}
    return InputError(message, file=name, field=place.get(word), fix=fix)


# ---------------------------------------------------------------- the process that reads


def main() -> None:
    """Writes the rows of the file on standard input, and then a word on how it ended."""
    import resource

    unspoken, limit, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with suppress(OSError, ValueError):  # a system that has no such limit
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    out = sys.stdout.buffer
    word = "end"
    try:
        for row in _values(limit):
            text = (
                json.dumps(row, ensure_ascii=False, default=_iso)
                if unspoken == "iso"
                else json.dumps(row, ensure_ascii=False, default=repr, sort_keys=True)
            )
            out.write(text.encode("utf-8", "backslashreplace") + b"\n")
    except MemoryError:
        word = "memory"
    except _Ended as ended:
        word = str(ended)
    out.write(f"{word}\n".encode())


class _Ended(Exception):
    """The reading, with the word that says why."""


def _values(limit: int) -> Iterator[dict[str, object]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise _Ended("absent") from error
    except ImportError as error:  # a shared library, for which a limit may leave no room
        raise _Ended(f"unloaded {' '.join(str(error).split())}") from error
    try:
        with os.fdopen(0, "rb") as stream:
            # Else whole columns of a row group, which may be all of a file, are read ahead.
            file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=_AHEAD)
            about = file.metadata
            sizes = (about.row_group(at).total_byte_size for at in range(about.num_row_groups))
            declared = max(sum(sizes), 1)
            if declared > limit:
                raise _Ended("large")
            count = max(1, min(_BATCH, _BATCH_BYTES * about.num_rows // declared))
            for batch in file.iter_batches(batch_size=count, use_threads=False):
                yield from batch.to_pylist()
    except MemoryError:
        raise  # which arrow's is, too
    except (arrow.ArrowException, OSError) as error:
        raise _Ended("broken") from error
    # Text that is no UTF-8, a time beyond Python's, a zone that nobody knows.
    except (ArithmeticError, LookupError, ValueError) as error:
        raise _Ended("value") from error


def _iso(value: object) -> str:
    isoformat = getattr(value, "isoformat", None)
    if isoformat is None:
        raise _Ended(f"row {type(value).__name__}")
    return str(isoformat())
