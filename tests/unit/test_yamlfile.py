"""YAML from strangers: what is refused, and that every refusal names its line."""

from __future__ import annotations

import pytest

from adapterbot.errors import InputError
from adapterbot.files.yamlfile import parse

BOMB = "a: &a [x]\n" + "".join(f"{n}: [{', '.join(['*a'] * 30)}]\n" for n in "bcdef")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: [1", "line 1: is not YAML"),
        (b"a: 1\n\tb: 2", "line 2: is not YAML: a tab begins a line (indent with spaces)"),
        (b"- a: 1\n b: 2", "line 2: is not YAML: this line does not belong to the lines above it"),
        (b"a: 1\n  b: 2", "line 2: is not YAML: a second `: ` on this line, or a line that is ind"),
        (b"- a: 1\n  b\n  c: 1", "line 2: is not YAML: a field has no `:` behind its name"),
        (b"a: 1\na: 2", "line 2: has the key 'a' twice"),
        (b"a: !!python/object/apply:os.system [x]", "line 1"),  # attack: code in a tag
        (b"x: &a {}\n<<: *a", "merge key"),
        (BOMB.encode(), "too many YAML aliases"),  # attack: billion laughs
        (b"? [a]\n: 1", "not plain text"),
        (b"a: \xff\xfe", "not UTF-8"),
        (("[" * 200 + "]" * 200).encode(), "nested too deeply"),
        (("[" * 100_000).encode(), "file"),
        (b"a: 2024-99-99", "cannot read"),
        # attack: what PyYAML answers with an error that is none of its own
        (b"\na: !!bool x", "line 2: holds a value we cannot read"),
        (b"a: !!timestamp x", "line 1: holds a value we cannot read"),
        (b"a: !!int ''", "line 1: holds a value we cannot read"),
        (b"a: " + b"9" * 5000, "line 1: holds a value we cannot read"),
        (b'a: "\\UFFFFFFFF"', "an escape that is no character"),
        (b'a: "\\U00110000"', "an escape that is no character"),
        # attack: what is read here, and written nowhere
        (b"a: 0x" + b"f" * 20_000, "line 1: holds a number that is too large"),
        (b'a: "\\ud800"', "line 1: holds half of a surrogate pair"),
        (b'"\\ud800": a', "line 1: holds half of a surrogate pair"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: bytes, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "file")
    assert says in str(caught.value)


def test_lines_of_fields_are_known() -> None:
    file = parse("a: 1\nb:\n  - c: 2\n    d: 3\n", "f")
    assert file.content == {"a": 1, "b": [{"c": 2, "d": 3}]}
    assert file.line("b", 0, "d") == 4
    assert file.line("b", 0, "missing") == 3
    assert parse("", "f").content is None


def test_keys_stay_text() -> None:
    assert parse("1: a\nyes: b\n", "f").content == {"1": "a", "yes": "b"}
