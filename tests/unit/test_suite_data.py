"""Rows of data files: formats that agree with each other, and files nobody should be fed."""

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.eval import data
from adapterbot.eval.data import read_rows
from adapterbot.files.strict_json import parse_json, same_json
from adapterbot.files.tree import WorkTree


@pytest.fixture
def read(tmp_path):
    def run(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_rows(WorkTree(tmp_path), name)

    return run


def test_jsonl_with_blank_lines_crlf_and_a_byte_order_mark(read):
    rows = read("d.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": "\xc3\xa4"}')
    assert [(row.line, row.values) for row in rows] == [(1, {"a": 1}), (3, {"a": "ä"})]


def test_csv_with_quotes_newlines_and_lists(read):
    rows = read("d.csv", 'prompt,choices,note\n"a, ""b""\nc","[""x"", ""y""]",[no json\n')
    assert [row.values for row in rows] == [
        {"prompt": 'a, "b"\nc', "choices": ["x", "y"], "note": "[no json"}
    ]


def test_rows_of_parquet_are_values_of_json(read, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table(
        {
            "prompt": ["a", "b"],
            "expected": [1, None],
            "choices": [["x"], ["y", "z"]],
            "when": [datetime.date(2024, 3, 3)] * 2,
        }
    )
    parquet.write_table(table, tmp_path / "d.parquet")
    rows = read_rows(WorkTree(tmp_path), "d.parquet")
    assert [row.line for row in rows] == [1, 2]
    assert rows[1].values == {
        "prompt": "b",
        "expected": None,
        "choices": ["y", "z"],
        "when": "2024-03-03",
    }
    parquet.write_table(pa.table({"prompt": [b"\xff"]}), tmp_path / "e.parquet")
    with pytest.raises(InputError, match="it holds a bytes"):
        read_rows(WorkTree(tmp_path), "e.parquet")


BAD = {
    "empty": ("d.jsonl", b"", "holds no rows", None),
    "blank": ("d.jsonl", b"\n \n", "holds no rows", None),
    "header only": ("d.csv", b"a,b\n", "holds no rows", None),
    "not JSON": ("d.jsonl", b'{"a": 1}\n{"a": }\n', "is not JSON", "line 2"),
    "a list": ("d.jsonl", b"[1]\n", "not a JSON object", "line 1"),
    "NaN": ("d.jsonl", b'{"a": NaN}\n', "NaN is not JSON", "line 1"),
    "infinite": ("d.jsonl", b'{"a": 1e999}\n', "too large", "line 1"),
    "beyond a float": ("d.jsonl", b'{"a": 1' + b"0" * 309 + b"}\n", "too large", "line 1"),
    "huge integer": ("d.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "is not JSON", "line 1"),
    "key twice": ("d.jsonl", b'{"a": 1, "a": 2}\n', "'a' is there twice", "line 1"),
    "surrogate": ("d.jsonl", b'{"a": "\\ud800"}\n', "surrogate", "line 1"),
    "invalid UTF-8": ("d.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "not UTF-8", "line 2"),
    "deep": ("d.jsonl", b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too deeply", "line 1"),
    "a line of over 1 MB": (
        "d.jsonl",
        b'{"a": "' + b"x" * 1_100_000 + b'"}',
        "1,048,576",
        "line 1",
    ),
    "CSV invalid UTF-8": ("d.csv", b"a\n\xff\n", "not UTF-8", "line 2"),
    "CSV too few cells": ("d.csv", b"a,b\n1\n", "has 1 cells where the header has 2", "line 2"),
    "CSV column twice": ("d.csv", b"a,a\n1,2\n", "repeated column", "line 1"),
    "CSV cell too large": ("d.csv", b"a\n" + b"x" * 200_000 + b"\n", "is not CSV", "line"),
    "CSV open quote": ("d.csv", b'a\n"x\n', "is not CSV", "line"),
    "not Parquet": ("d.parquet", b"PAR1nonsensePAR1", "not a Parquet file", None),
    "unknown": ("d.xlsx", b"x", "not a data file we read", None),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_with_its_line(read, case):
    name, content, message, line = BAD[case]
    with pytest.raises(InputError) as caught:
        read(name, content)
    assert message in str(caught.value)
    assert caught.value.file == name
    assert caught.value.fix
    assert line is None or line in (caught.value.field or "")


def test_too_many_rows(read, monkeypatch):
    monkeypatch.setattr(data, "ROW_LIMIT", 3)
    with pytest.raises(InputError, match="more than 3 rows"):
        read("d.jsonl", '{"a": 1}\n' * 4)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_strict_json_reads_what_json_writes(value):
    assert same_json(parse_json(json.dumps(value)), value)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([True], [1], False),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [2, 1], False),
        ("1", 1, False),
    ],
)
def test_equality_is_that_of_json(left, right, same):
    assert same_json(left, right) is same
    assert same_json(right, left) is same
