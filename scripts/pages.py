"""Fills the generated parts of the documentation: the options of every command from the command
line itself, the fields of every file format from its schema. A command without a page is given one.
`--check` says whether all is up to date, and writes nothing."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from adapterbot.cli import app

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCHEMAS = DOCS / "schemas"
FORMATS = DOCS / "formats.md"
_MARKS = "<!-- options -->\n", "<!-- /options -->"
_FORMATS = {
    "config-v1.schema.json": "adapterbot.yaml",
    "suite-v1.schema.json": "Eval suite",
    "report-v1.schema.json": "report.json",
    "adapter-pr-v1.schema.json": "Adapter pull request",
    "merge-v1.schema.json": "Record of a merge",
}
_LOWER = {"minimum": "≥", "exclusiveMinimum": ">"}
_UPPER = {"maximum": "≤", "exclusiveMaximum": "<"}
_FORMATS_HEAD = """# File formats

Every field of the files that you write and that other programs read. Fields that are not marked as
required may be left out. To start, see [how to write a suite](eval.md#writing-a-suite) and the
[FAQ](faq.md#setting-up).

Each format has a JSON Schema (2020-12). An editor reads it from a first line such as
`# yaml-language-server: $schema=…`.

Other formats have pages of their own: [soup.lock](lock.md), [banks](bank.md) and
[mixtures](mole.md). Adapter directories are PEFT's.
"""


# ---------------------------------------------------------------- commands


def options(command: Any, name: str) -> str:
    """The usage, the help and the options of a command, and of those below it."""
    return "\n".join(_command(command, name, 2)).rstrip() + "\n"


def _command(command: Any, name: str, level: int) -> Iterator[str]:
    below = getattr(command, "commands", {})
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"{'#' * level} `adapterbot {name}`\n"
    yield f"```text\nadapterbot {name} {pieces}\n```\n"
    yield f"{_prose(command.help or '')}\n"
    rows = [_row(parameter, context) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield "| Argument or option | Meaning | Default | Variable |\n|:--|:--|:--|:--|"
        yield from rows
        yield ""
    for inner, found in sorted(below.items()):
        yield from _command(found, f"{name} {inner}", level + 1)


def _prose(text: str) -> str:
    """A docstring as Markdown, each command line of its examples behind a prompt."""
    out: list[str] = []
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("```console\n"):
            lines = block.splitlines()[1:-1]
            shown = (line if line.startswith(" ") else f"$ {line}" for line in lines)
            out.append("\n".join(["```text", *shown, "```"]))
        else:
            out.append(block)
    return "\n\n".join(out)


def _row(parameter: Any, context: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.human_readable_name if is_argument else ", ".join(parameter.opts)
    if parameter.secondary_opts:
        name = f"{name}/{', '.join(parameter.secondary_opts)}"
    kind = "" if is_argument or parameter.is_flag else f" {_kind(parameter, context)}"
    default = parameter.default
    says_nothing = default is None or default is False or default in ((), "") or callable(default)
    shown = "" if says_nothing else f"`{_option_default(parameter)}`"
    if isinstance(parameter.show_default, str):
        shown = parameter.show_default  # in words, where it depends
    if parameter.required:
        shown = "required"
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    meaning = _cell(getattr(parameter, "help", "") or "")
    return f"| `{_cell(name + kind)}` | {meaning} | {shown} | {variable} |"


def _kind(parameter: Any, context: Any) -> str:
    """`<int ≥ 1>` for a number within bounds, else what the command line itself says."""
    low, high = (getattr(parameter.type, side, None) for side in ("min", "max"))
    metavar: str = parameter.make_metavar(context)
    bounds = [f"≥ {low}" * (low is not None), f"≤ {high}" * (high is not None)]
    return metavar.replace(" range>", f" {', '.join(filter(None, bounds))}>")


def _option_default(parameter: Any) -> str:
    """As one would type it: a switch that is on by its name."""
    value = parameter.default
    return str(parameter.opts[0] if value is True else getattr(value, "value", value))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def command_pages() -> Iterator[tuple[Path, str]]:
    """Each command's page, with its generated part made anew."""
    start, end = _MARKS
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        path = DOCS / f"{name}.md"
        page = path.read_text(encoding="utf-8") if path.exists() else f"# {name}\n\n{start}{end}\n"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise SystemExit(f"{path.name}: write {start.strip()} and {end} once, around nothing")
        made = f"{start}{options(command, name)}{end}"
        yield path, pattern.sub(lambda _, made=made: made, page)  # type: ignore[misc]


# ---------------------------------------------------------------- formats


def formats_page() -> str:
    """Every schema as tables of fields; what several formats share stands where it comes first."""
    parts = [_FORMATS_HEAD]
    known: dict[str, str] = {}
    for file, title in _FORMATS.items():
        schema = json.loads((SCHEMAS / file).read_text(encoding="utf-8"))
        inner = sorted(schema.get("$defs", {}).items())
        own = {name: f"{file.split('.', maxsplit=1)[0]}-{name.lower()}" for name, _ in inner}
        anchors = {name: known.setdefault(f"{name} {found}", own[name]) for name, found in inner}
        parts.append(f"\n## {title}\n\nSchema: [{file}](schemas/{file})\n")
        parts += _object(schema, anchors)
        for name, found in inner:
            if anchors[name] == own[name]:
                parts += [f"\n### {name} {{: #{own[name]} }}\n", *_object(found, anchors)]
    return "\n".join(parts).rstrip() + "\n"


def _object(schema: dict[str, Any], anchors: Mapping[str, str]) -> list[str]:
    out = []
    if description := schema.get("description"):
        out.append(f"{_description(description)}\n")
    if values := schema.get("enum"):
        out.append("One of " + ", ".join(f"`{value}`" for value in values) + ".\n")
    if properties := schema.get("properties"):
        required = set(schema.get("required", ()))
        out.append("| Field | Type | Default |\n|:--|:--|:--|")
        for key, field in properties.items():
            default = "required" if key in required else _default(field)
            out.append(f"| `{key}` | {_type(field, anchors)} | {_cell(default)} |")
        out.append("")
    elif not values:
        out.append(f"{_type(schema, anchors)}\n")
    return out


def _default(field: dict[str, Any]) -> str:
    """Nothing where the schema has none; an object's own fields say what each of them is."""
    value = field.get("default")
    if "default" not in field or (isinstance(value, dict) and value):
        return ""
    return f"`{json.dumps(value)}`"


def _description(text: str) -> str:
    """Docstrings list fields as `name: what it is`, a line each; Markdown wants a list."""
    return re.sub(r"(?m)^(\w+): ", r"- `\1`: ", re.sub(r"\n+(?=\w+: )", "\n\n", text, count=1))


def _type(field: dict[str, Any], anchors: Mapping[str, str]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchors[name]})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(option, anchors) for option in field[key]))
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    kind = field.get("type", "anything")
    if kind == "array":
        inner: dict[str, Any] = field.get("items") or next(iter(field.get("prefixItems", ())), {})
        return f"list of {_type(inner, anchors)}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping to {_type(field['additionalProperties'], anchors)}"
    return " ".join([kind if isinstance(kind, str) else " or ".join(kind), *_bounds(field)])


def _bounds(field: dict[str, Any]) -> Iterator[str]:
    """The narrowest on each side; of two that are equal the one that leaves itself out."""
    low = [(field[key], sign == ">", sign) for key, sign in _LOWER.items() if key in field]
    high = [(-field[key], sign == "<", sign) for key, sign in _UPPER.items() if key in field]
    for bounds, factor in ((low, 1), (high, -1)):
        if bounds:
            value, _, sign = max(bounds)
            yield f"{sign} {_plain_number(factor * value)}"


def _plain_number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def generated() -> Iterator[tuple[Path, str]]:
    """Every page with a generated part, as it should be."""
    yield from command_pages()
    yield FORMATS, formats_page()


def main() -> None:
    """Write the pages, or compare them."""
    for path, text in generated():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise SystemExit(f"docs/{path.name} is out of date; run `python -m scripts.pages`")


if __name__ == "__main__":
    main()
