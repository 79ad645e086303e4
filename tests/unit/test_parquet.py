"""A few hostile bytes of Parquet ask for no more than was said that they may."""

from __future__ import annotations

import io
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pytest
from pyarrow import parquet as written

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.data import read_rows
from adapterbot.files import parquet
from adapterbot.files.tree import WorkTree
from tests.processes import needs_proc

MIB = 1 << 20


def plain(text: str, rows: int = 1) -> bytes:
    """Compressed pages."""
    stream = io.BytesIO()
    table = arrow.table({"prompt": [text] * rows})
    # Without statistics, which take longer than all else.
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    written.write_table(table, stream, **options)
    return stream.getvalue()


def repeated(text: str, rows: int) -> bytes:
    """One value of a dictionary, which fills every row."""
    stream = io.BytesIO()
    column = arrow.DictionaryArray.from_arrays(arrow.array([0] * rows, arrow.int32()), [text])
    written.write_table(arrow.table({"prompt": column}), stream, store_schema=False)
    return stream.getvalue()


def nulls(count: int) -> bytes:
    """A list of nulls, which are counted and not written."""
    stream = io.BytesIO()
    column = arrow.ListArray.from_arrays([0, count], arrow.nulls(count, arrow.int8()))
    written.write_table(arrow.table({"prompt": column}), stream)
    return stream.getvalue()


def varint(number: int) -> bytes:
    """A whole number of the footer (Thrift's compact protocol, zigzag)."""
    number, found = 2 * number, bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def belittled(content: bytes) -> bytes:
    """The same file, whose footer says that its pages are small."""
    row_group = written.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    (size,) = struct.unpack("<I", content[-8:-4])
    start = len(content) - 8 - size
    old = varint(row_group.total_byte_size)
    little = bytes([128 | 2, *[128] * (len(old) - 2), 0])
    lied = content[:start] + content[start:].replace(old, little)
    assert written.ParquetFile(io.BytesIO(lied)).metadata.row_group(0).total_byte_size == 1
    return lied


def read(content: bytes) -> list[bytes]:
    found = parquet.rows(
        "d.parquet", io.BytesIO(content), unspoken="iso", limit=64 * MIB, row_limit=MIB
    )
    return list(found)


ROWS = "holds more than the 67,108,864 bytes"
MEMORY = "takes more than the 268,435,456 bytes of memory"
LINE = "line 1: is longer than the 1,048,576 bytes we read"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: plain("0" * 10_000, rows=7000), ROWS),
        (lambda: belittled(plain("0" * 10_000, rows=7000)), ROWS),
        (lambda: repeated("0" * 100_000, rows=100_000), ROWS),
        (lambda: plain("0" * 2 * MIB), LINE),
        (lambda: nulls(1_000_000), LINE),
        pytest.param(lambda: nulls(50_000_000), MEMORY, marks=needs_proc),
        pytest.param(lambda: belittled(plain("0" * 300 * MIB)), MEMORY, marks=needs_proc),
    ],
    ids=["pages", "belittled", "dictionary", "cell", "nulls", "many nulls", "belittled page"],
)
def test_attack_a_small_file_that_stands_for_much_is_refused(
    make: Callable[[], bytes], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MEMORY", 256 * MIB)
    content = make()
    assert len(content) < 300_000
    with pytest.raises(InputError, match=r"^d\.parquet: ") as caught:
        read(content)
    assert says in str(caught.value)


@needs_proc
def test_attack_a_suite_of_one_kilobyte_asks_for_little_memory(tmp_path: Path) -> None:
    content = repeated("0" * 1_000_000, rows=100_000)
    assert len(content) < 100_000
    (tmp_path / "d.parquet").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"d\.parquet: holds more than the 268,435,456 bytes"):
        read_rows(WorkTree(tmp_path), "d.parquet")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown << 10 < 1024 * MIB


@pytest.mark.parametrize(("count", "times"), [(150_000, 300), (300, 150_000)])
def test_a_row_group_larger_than_the_memory_is_read(
    count: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most writers put a million rows into one, and whole columns need not be held at once."""
    monkeypatch.setattr(parquet, "MEMORY", 256 * MIB)
    stream = io.BytesIO()
    table = arrow.table({"prompt": [f"{row:06}" * times for row in range(count)]})
    pages = {"data_page_size": MIB, "write_batch_size": 8, "write_statistics": False}
    written.write_table(table, stream, compression="none", use_dictionary=False, **pages)
    assert stream.getbuffer().nbytes > 270_000_000
    stream.seek(0)
    found = parquet.rows("d", stream, unspoken="iso", limit=1 << 30, row_limit=MIB)
    for row, line in zip(range(count), found, strict=True):
        assert line == b'{"prompt": "%s"}' % (b"%06d" % row * times)


def stand_in(folder: Path, script: str) -> str:
    """A program in the place of Python."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_a_file_that_ends_its_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = stand_in(tmp_path, "echo '{\"a\": 1}'; kill -SEGV $$")
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(InputError, match="not a Parquet file: reading it ended with signal 11"):
        read(plain("a"))


@pytest.mark.parametrize(
    ("end", "says"), [("kill -KILL $$", "signal 9"), ("exit 1", r"an error \(exit 1\)")]
)
def test_a_reader_that_is_killed_is_our_failure_and_gives_no_half_row(
    end: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel does so where memory ends: it says nothing of the file."""
    program = stand_in(tmp_path, 'printf \'{"a": 1}\\n{"a": "cut sho\'; ' + end)
    monkeypatch.setattr(sys, "executable", program)
    found = parquet.rows("d", io.BytesIO(), unspoken="iso", limit=MIB, row_limit=MIB)
    assert next(found) == b'{"a": 1}'
    with pytest.raises(OurFailure, match=f"ended by {says}"):
        next(found)


def test_a_reader_that_cannot_be_started_is_our_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OurFailure, match="could not be started: No such file"):
        read(plain("a"))


def test_pyarrow_is_taken_from_where_this_process_takes_it_but_never_from_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a user's own packages, which an isolated Python does not look for."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError('libarrow.so: no room')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(OurFailure, match=r"pyarrow does not load: libarrow\.so: no room"):
        read(plain("a"))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)
    assert read(plain("a")) == [b'{"prompt": "a"}']


@needs_proc
def test_who_stops_in_the_middle_leaves_no_process(tmp_path: Path) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    (tmp_path / "d.parquet").write_bytes(plain("a" * 1000, rows=50_000))
    others = children()
    with (tmp_path / "d.parquet").open("rb") as stream:
        found = parquet.rows("d", stream, unspoken="repr", limit=1 << 40, row_limit=MIB)
        assert next(found) == b'{"prompt": "' + b"a" * 1000 + b'"}'
        own = children() - others
        assert own
        found.close()
        assert not own & children()
