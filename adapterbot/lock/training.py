"""What a lock pins of soup.yaml: base model and data, with the line on which each stands, and the
settings that change what training gives.

Soup's schema has hundreds of fields and belongs to Soup; nothing is validated here but what we pin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from adapterbot.errors import InputError
from adapterbot.files.tree import Tree
from adapterbot.files.yamlfile import YamlFile, parse
from adapterbot.lock.schema import line_text

SOUP_YAML = "soup.yaml"
_MAX_TEXT = 512  # Soup's bound on `base_model`
MAX_SETTING = 4000
# Fields of `data` that name files. `val` and `validation` are other trainers' words.
_NAMING = (
    "train",
    "validation",
    "val",
    "replay",
    "forget_set",
    "retain_set",
    "tokenized_path",
    "image_dir",
    "audio_dir",
    "video_dir",
)
# Where things go, what they are called and how often we hear of them: no weight depends on it. At
# the top, or of `training`; elsewhere such a word may be the name of a column.
_INERT = frozenset(
    {
        "advise",
        "description",
        "eval",
        "eval_steps",
        "experiment_name",
        "logging_dir",
        "logging_steps",
        "output",
        "output_dir",
        "report_to",
        "run_name",
        "save_steps",
        "save_total_limit",
    }
)


@dataclass(frozen=True)
class Named:
    """A file, folder, pattern or Hub dataset that the data section names, as written."""

    text: str
    field: str
    line: int

    @property
    def place(self) -> str:
        """Field and line, for an error."""
        return f"{self.field} (line {self.line})"


@dataclass(frozen=True)
class TrainingConfig:
    """What soup.yaml says of base model and data. Paths are as written, relative to the file; the
    lines are 1-based. `output` is where the run puts its adapter. `settings` are what else changes
    the result, by dotted name: also which file is for what, and in which order, of which the digest
    of the files knows nothing."""

    path: str
    base: str
    base_line: int
    entries: tuple[Named, ...]
    output: str | None
    settings: Mapping[str, str]
    setting_lines: Mapping[str, int]

    @property
    def directory(self) -> str:
        """The folder that paths in the file are relative to; "" is the root."""
        return self.path.rpartition("/")[0]

    @property
    def base_place(self) -> str:
        """Field and line of the base model, for an error."""
        return f"base (line {self.base_line})"

    @property
    def data_line(self) -> int:
        """The line of the first data file, for a drift that cannot be pinned on one of them."""
        return self.entries[0].line


def settings_digest(settings: Mapping[str, str]) -> str:
    """SHA-256 of settings as sorted, compact JSON."""
    text = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load_training(tree: Tree, path: str) -> TrainingConfig:
    """Read soup.yaml.

    Raises:
        InputError: it is missing or unreadable, or lacks `base` or `data.train`.
    """
    if not tree.has(path):
        raise InputError(
            f"does not exist in {tree.label}; it names the base model and the training data",
            file=path,
            fix="write it, with `base:` and `data: {train: …}`, or correct the path",
        )
    file = parse(tree.read(path), path)
    content = file.content
    if not isinstance(content, dict):
        raise InputError("must be a mapping", file=path, fix="start with `base:` and `data:`")
    base, base_line = _field(file, content, "base")
    data, _ = _field(file, content, "data")
    if not isinstance(data, dict):
        raise InputError(
            "must be a mapping", file=path, field=file.place("data"), fix="add `train:` to it"
        )
    _field(file, data, "data", "train")
    settings = dict(_settings(content, ""))
    return TrainingConfig(
        path=path,
        base=line_text(
            base, _MAX_TEXT, file=path, field=file.place("base"), fix="correct the value"
        ),
        base_line=base_line,
        entries=tuple(_named(file, data)),
        output=output if isinstance(output := content.get("output"), str) else None,
        settings=settings,
        setting_lines={name: file.line(*name.split(".")) or 1 for name in settings},
    )


def _field(file: YamlFile, content: Mapping[str, object], *path: str) -> tuple[object, int]:
    if content.get(path[-1]) is None:
        raise InputError("is missing", file=file.name, field=file.place(*path), fix="add it")
    return content[path[-1]], file.line(*path) or 1


def _named(file: YamlFile, data: Mapping[str, object]) -> Iterator[Named]:
    for field in _NAMING:
        given = data.get(field)
        if given is None:
            continue
        entries = given if isinstance(given, list) else [given]
        for index, entry in enumerate(entries):
            line = file.line("data", field, index) or 1
            where = f"data.{field}"
            text = line_text(
                entry,
                2000,
                file=file.name,
                field=f"{where} (line {line})",
                fix="name a file, a folder, a pattern or a dataset of the Hub",
            )
            yield Named(text, where, line)


def _settings(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Dotted names with their values as JSON, but for what is compared by itself or inert."""
    if not isinstance(value, dict):
        yield name, _plain(value)
        return
    for key, inner in value.items():
        passed = (not name and key == "base") or (name in ("", "training") and key in _INERT)
        if not passed:
            yield from _settings(inner, f"{name}.{key}" if name else key)


def _plain(value: object) -> str:
    if isinstance(value, str):
        # To YAML `1e-4` is a text and `1.0e-4` a number; to the trainer they are the same.
        with suppress(ValueError):
            number = float(value)
            # A commit such as 12345e678, or digits beyond a float's, would lose what it says.
            value = number if abs(number) < 2**53 else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = json.dumps(value, sort_keys=True, default=str)
    if len(text) <= MAX_SETTING:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{len(text):,} characters, sha256:{digest}"


def predates_data(recorded: Mapping[str, str]) -> bool:
    """Whether settings were recorded by a program that took neither the names of data, which every
    soup.yaml has, nor inert words anywhere for settings, and hidden files in a folder for data."""
    return not any(map(_names_data, recorded))


def as_recorded(settings: Mapping[str, str], recorded: Mapping[str, str]) -> dict[str, str]:
    """Those of `settings` that `recorded` can be compared with."""
    if not predates_data(recorded):
        return dict(settings)
    return {
        name: value
        for name, value in settings.items()
        if not _names_data(name) and _INERT.isdisjoint(name.split("."))
    }


def _names_data(setting: str) -> bool:
    section, _, field = setting.partition(".")
    return section == "data" and field.partition(".")[0] in _NAMING


def changed_settings(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """What changed, a setting a line: `training.lora.r 8 → 16`."""
    return tuple(
        f"{name} {old.get(name, 'unset')} → {new.get(name, 'unset')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )
