"""YAML written by people we do not know: safe types, no duplicate keys, no alias bombs, and the
line of every field, so that an error can name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar, get_args, get_origin

import yaml

from adapterbot.errors import InputError
from adapterbot.files.validation import in_words

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound="BaseModel")

MAX_ALIASES = 100
MAX_BYTES = 256 * 1024  # the pure-Python parser takes seconds for a megabyte
MAX_DEPTH = 50
_MAX_BITS = 1024  # of a number; Python itself does not print some that it reads
_NO_COLON = "could not find expected ':'"
# What the parser says of the mistakes that are made most, and what it means.
_SYNTAX = {
    "expected <block end>": (
        "this line does not belong to the lines above it",
        "begin every field of one mapping, and every `-` of one list, in the same column",
    ),
    "mapping values are not allowed here": (
        "a second `: ` on this line, or a line that is indented too far",
        "put text that holds `: ` in quotes, and fields of one mapping in the same column",
    ),
    "found character '\\t'": ("a tab begins a line", "indent with spaces"),
    _NO_COLON: ("a field has no `:` behind its name", "write `name: value`"),
}
_PLAIN_COLLECTIONS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True)
class YamlFile:
    """Parsed content, and the 1-based line on which each field starts."""

    name: str
    content: object
    lines: Mapping[Path, int]

    def line(self, *path: str | int) -> int | None:
        """The line of a field, or of the nearest field around it that exists."""
        for length in range(len(path), -1, -1):
            found = self.lines.get(path[:length])
            if found is not None:
                return found
        return None

    def place(self, *path: str | int) -> str:
        """How an error names a field: its path, and its line."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        name = "".join(parts).lstrip(".") or "the file"
        line = self.line(*path)
        return f"{name} (line {line})" if line else name

    def error(self, at: Path, message: str, fix: str) -> InputError:
        """An error about one field."""
        return InputError(message, file=self.name, field=self.place(*at), fix=fix)


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Path, int] = {}
        self.constructor = yaml.constructor.SafeConstructor()
        self.aliased = 0
        self.seen: set[int] = set()

    def fail(self, node: yaml.Node, message: str, fix: str) -> InputError:
        return InputError(
            message, file=self.name, field=f"line {node.start_mark.line + 1}", fix=fix
        )

    def value(self, node: yaml.Node, path: Path) -> object:
        if len(path) > MAX_DEPTH:
            raise self.fail(node, "is nested too deeply", "flatten it")
        if id(node) in self.seen and not isinstance(node, yaml.ScalarNode):
            self.aliased += 1
            if self.aliased > MAX_ALIASES:
                raise self.fail(node, "uses too many YAML aliases", "write the values out")
        self.seen.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_COLLECTIONS:
            raise self.fail(node, f"has the tag {node.tag!r}", "use plain values")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self.scalar(node)

    def scalar(self, node: yaml.Node) -> object:
        self.check_text(node)
        try:
            found = self.constructor.construct_object(node)
        # A tag may call any text a date or a bool, and PyYAML stumbles over those that are none.
        except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
            raise self.fail(node, "holds a value we cannot read", "use plain values") from error
        if isinstance(found, int) and found.bit_length() > _MAX_BITS:
            raise self.fail(node, "holds a number that is too large", "write a smaller one")
        return found

    def check_text(self, node: yaml.Node) -> None:
        try:
            node.value.encode()
        except UnicodeEncodeError as error:
            raise self.fail(
                node, "holds half of a surrogate pair", "write the character itself"
            ) from error

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, "has a key that is not plain text", "use a plain key")
            self.check_text(key_node)
            name = str(key_node.value)
            if name == "<<":
                raise self.fail(key_node, "uses a YAML merge key", "write the fields out")
            if name in found:
                raise self.fail(key_node, f"has the key {name!r} twice", "keep one of them")
            self.lines[(*path, name)] = key_node.start_mark.line + 1
            found[name] = self.value(value_node, (*path, name))
        return found


def parse(content: bytes | str, name: str) -> YamlFile:
    """Parse one YAML document.

    Raises:
        InputError: not UTF-8, not YAML, several documents, a duplicate key, a merge key, a tag
            that is not plain data, or more aliases than any honest file has.
    """
    if len(content) > MAX_BYTES:
        raise InputError(
            f"is larger than {MAX_BYTES:,} bytes", file=name, fix="keep data out of it"
        )
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", file=name, fix="save it as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "cannot be parsed"
        marks = [getattr(error, "problem_mark", None), getattr(error, "context_mark", None)]
        # A colon is missed on the line after the name that lacks it.
        mark = next(filter(None, marks[:: -1 if problem == _NO_COLON else 1]), None)
        words, fix = next(
            (said for found, said in _SYNTAX.items() if problem.startswith(found)),
            (problem, "correct the syntax"),
        )
        raise InputError(
            f"is not YAML: {words}",
            file=name,
            field=f"line {mark.line + 1}" if mark else None,
            fix=fix,
        ) from error
    except RecursionError as error:
        raise InputError("is nested too deeply", file=name, fix="flatten it") from error
    except (ValueError, OverflowError) as error:
        raise InputError(
            "has an escape that is no character", file=name, fix="write the character itself"
        ) from error
    if node is None:
        return YamlFile(name, None, {(): 1})
    reader = _Reader(name)
    return YamlFile(name, reader.value(node, ()), reader.lines)


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` when one of `known` is close, else nothing."""
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def validate(model: type[Model], file: YamlFile, content: object, at: Path = ()) -> Model:
    """`content` as `model`; the first thing wrong with it becomes one clear line.

    Raises:
        InputError: naming the file, the field and its line.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _explain(error, model, file, at) from error


def _explain(
    error: ValidationError, model: type[BaseModel], file: YamlFile, at: Path
) -> InputError:
    errors = error.errors(include_url=False)
    # A misspelt field is unknown and missing at once; the first says what to do about both.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path: Path = (*at, *first["loc"])
    if first["type"] == "extra_forbidden":
        known = dict(_fields(model))
        name = str(path[-1])
        if name in known:
            return file.error(path, "does not go here", f"move it to {known[name]}")
        hint = nearest(name, sorted(known))
        return file.error(path, f"is not a field we know{hint}", "remove or rename it")
    fix = "add it" if first["type"] == "missing" else "correct the value"
    return file.error(path, in_words(first), fix)


_INSIDE: dict[object, str] = {tuple: "[]", list: "[]", dict: ".NAME"}


def _fields(kind: object, at: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a model and of the models inside it: its name, and where it goes, such as
    `adapters[].policy`."""
    fields = getattr(kind, "model_fields", None)
    if fields is None:
        inside = _INSIDE.get(get_origin(kind), "")
        for inner in get_args(kind):
            yield from _fields(inner, at + inside)
        return
    for name, field in fields.items():
        yield name, f"{at}.{name}".lstrip(".")
        yield from _fields(field.annotation, f"{at}.{name}")
