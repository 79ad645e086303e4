"""Tool calls, in the shapes in which models write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from adapterbot.eval.scorers.json_text import json_of
from adapterbot.files.strict_json import parse_json, same_json

Shape = Literal["any", "function"]


@dataclass(frozen=True)
class Call:
    """One call. `arguments` is None when what stands there is no JSON object."""

    name: str
    arguments: Mapping[str, JsonValue] | None


def calls_of(text: str, *, extract: bool, shape: Shape = "any") -> tuple[Call, ...]:
    """The calls in a text: `{"name", "arguments"}`, OpenAI's `{"function": {…}}`, a list of
    either, or `{"tool_calls": […]}`. Arguments may be an object or JSON in a string.

    The shape `function` is one `{"function": {…}}` and nothing else.

    Raises:
        ValueError: it holds something else.
    """
    value = json_of(text, extract=extract)
    if shape == "function" and not (isinstance(value, dict) and "function" in value):
        raise ValueError("it is not of the shape {'function': …}")
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise ValueError("it holds no tool call")
    return tuple(_call(item) for item in listed)


def _call(value: JsonValue) -> Call:
    if isinstance(value, dict) and "function" in value:
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("it holds no tool call with a name")
    return Call(str(value["name"]), _arguments(value))


def _arguments(call: Mapping[str, JsonValue]) -> Mapping[str, JsonValue] | None:
    given = call.get("arguments", call.get("parameters", {}))
    if isinstance(given, str):
        try:
            given = parse_json(given)
        except ValueError:
            return None
    return given if isinstance(given, dict) else None


def shared(expected: Mapping[str, JsonValue], said: Mapping[str, JsonValue]) -> int:
    """How many of the expected arguments were said, with their values."""
    return sum(key in said and same_json(value, said[key]) for key, value in expected.items())
