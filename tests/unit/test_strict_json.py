"""JSON that means one thing."""

from __future__ import annotations

import pytest

from adapterbot.files.strict_json import DuplicateKeyError, unique_object


class _Counted(str):
    """A key that counts how often any is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        _Counted.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_key_that_is_there_twice_is_found_without_comparing_each_with_all() -> None:
    """A pull request's lock has room for 90,000 keys, and a safetensors header for 700,000."""
    names = [_Counted(f"key {number}") for number in range(1000)]
    pairs: list[tuple[str, object]] = [(name, 0) for name in (*names, _Counted("key 999"))]
    _Counted.comparisons = 0
    with pytest.raises(DuplicateKeyError, match="'key 999' is there twice"):
        unique_object(pairs)
    assert _Counted.comparisons < 10 * len(names)
