"""JSON Lines: every object with the number of its line, bounded, and every mistake named."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.files import jsonl

ROWS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=8), max_size=3)


@given(st.lists(st.none() | ROWS), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_objects_come_with_their_lines(
    rows: list[dict[str, object] | None], newline: str, bom: bool, ended: bool
) -> None:
    written = [" " if row is None else json.dumps(row, ensure_ascii=False) for row in rows]
    text = ("\ufeff" if bom else "") + newline.join(written) + (newline if ended else "")
    found = jsonl.objects("d.jsonl", io.BytesIO(text.encode()), limit=1000, shape="{}")
    assert list(found) == [(i, row) for i, row in enumerate(rows, 1) if row is not None]


def test_a_line_may_have_as_many_bytes_as_the_limit_and_no_more() -> None:
    line = b'{"a": "' + b"x" * 91 + b'"}'
    assert len(line) == 100
    for end in (b"", b"\n", b"\r\n"):
        assert len(list(jsonl.lines("f", io.BytesIO(line + end), limit=100))) == 1
    stream = io.BytesIO(b"{}\n" + b"x" * 10_000)
    with pytest.raises(InputError, match="f: line 2: is longer than the 100 bytes we read"):
        list(jsonl.lines("f", stream, limit=100))
    assert stream.tell() < 200


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "is not JSON: "),
        (b'{"a": NaN}', "is not JSON: NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "is not JSON: the key 'a' is there twice"),
        (b"[1]", 'is not a JSON object (write {"q"} on it)'),
        (b'{"a": "\xff"}', "is not UTF-8 text"),
    ],
)
def test_what_is_no_object_is_named_by_its_line(line: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        list(jsonl.objects("f", io.BytesIO(b"{}\n\n" + line), limit=1000, shape='{"q"}'))
    assert str(caught.value).startswith(f"f: line 3: {says}")
