"""JSON as the standard has it, read from people and models we do not know."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

_FLOAT_DIGITS = sys.float_info.max_10_exp


def parse_json(text: str, *, halves: bool = False, infinite: bool = False) -> JsonValue:
    """Strict JSON: no NaN, no number beyond a float, no key twice, no half of a surrogate pair.

    Args:
        halves: let halves of surrogate pairs pass, which a model may have said.
        infinite: let numbers beyond a float become infinity, for whoever has many of them and looks
            at them all the same.

    Raises:
        ValueError: saying what is wrong, in one line.
    """
    try:
        value: JsonValue = json.loads(
            text,
            object_pairs_hook=unique_object,
            parse_constant=refuse_constant,
            parse_float=None if infinite else _finite,
            parse_int=None if infinite else _whole,
        )
        if not halves and "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a surrogate pair") from error
    return value


def same_json(left: JsonValue, right: JsonValue) -> bool:
    """Equality as JSON has it: `true` is not 1, but 1 is 1.0.

    A work list instead of recursion: how deep the values go is a model's choice.
    """
    pending = [(left, right)]
    while pending:
        a, b = pending.pop()
        if isinstance(a, bool) or isinstance(b, bool):
            if a is not b:
                return False
        elif isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pending.extend((a[key], b[key]) for key in a)
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pending.extend(zip(a, b, strict=True))
        elif a != b:
            return False
    return True


class DuplicateKeyError(ValueError):
    """A key twice in one object: two readers would see two different values."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:100]!r} is there twice")
        self.key = key


def unique_object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """For `json.loads(object_pairs_hook=…)`.

    Raises:
        DuplicateKeyError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:  # a stranger's, and perhaps a hundred thousand: each is met once
            if name in seen:
                raise DuplicateKeyError(name)
            seen.add(name)
    return found


def refuse_constant(constant: str) -> float:
    """For `json.loads(parse_constant=…)`: the standard has no NaN and no infinity.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{constant} is not JSON")


def _whole(literal: str) -> int:
    value = int(literal)
    if len(literal) > _FLOAT_DIGITS:
        _finite(literal)
    return value


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ValueError(f"{literal[:20]} is too large")
    return value
