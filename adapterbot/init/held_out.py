"""Rows that the next training run will not see, taken from its data to judge it by.

A validation file that soup.yaml names is such rows already. Without one, rows *move*: which ones is
decided by a hash of the question alone, so that neither the order of the file nor rows that are
added later change it, and every copy of a question goes, so that none stays to be learnt.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from pydantic import JsonValue

from adapterbot.conversations import messages_of
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.lock.training import TrainingConfig

WANTED = 200
SHARE = 5  # at most a fifth of the questions
LEAST = 20
_MOST_COPIES = 10
_LIMIT = 512 * 1024 * 1024
_VALIDATION = ("data.validation", "data.val")
_LINES = (".jsonl", ".ndjson")
_ANSWER_KEYS = ("completion", "response", "expected", "answer")
_SLICE_KEYS = ("category", "slice", "domain", "language", "task", "type", "source")
_MOST_SLICES = 20
_LONGEST_LABEL = 100


@dataclass(frozen=True)
class HeldOut:
    """Rows for a suite.

    Attributes:
        sources: the data files that they are from.
        rest: what is left of each file that lost rows; empty when they are no training data.
        questions_left: distinct questions in the data that are not held out.
        rows: one for each question, as a suite reads them.
        moved: how many rows were taken out, every copy counted.
        slice: the key of the rows to report on apart, if there is one.
        unread: what the config names as data and we cannot read, and why.
    """

    sources: tuple[str, ...]
    rest: Mapping[str, bytes]
    questions_left: int
    rows: tuple[Mapping[str, JsonValue], ...]
    moved: int
    slice: str | None
    unread: tuple[str, ...]

    @property
    def answers(self) -> list[str]:
        """What each row expects."""
        return [str(row["expected"]) for row in self.rows]


@dataclass(frozen=True)
class _Asked:
    line: int
    key: str  # the hash of the question
    row: Mapping[str, JsonValue]


@dataclass(frozen=True)
class _File:
    name: str
    lines: list[bytes]
    asked: list[_Asked]

    def without(self, keys: set[str]) -> bytes | None:
        """The file without these questions; None when it has none of them."""
        gone = {question.line for question in self.asked if question.key in keys}
        kept = (raw for number, raw in enumerate(self.lines, 1) if number not in gone)
        return b"".join(kept) if gone else None


def held_out(
    tree: Tree,
    config: TrainingConfig,
    *,
    chat: bool,
    changed: Mapping[str, bytes] = MappingProxyType({}),
) -> HeldOut:
    """The rows to judge by, from the data that a training config names.

    Args:
        chat: whether the base model has a chat template, by which rows become text.
        changed: files that another suite's rows have left already, as they will be.

    Raises:
        InputError: nothing that it names can be read here, or it holds too few questions.
    """
    validation = [entry.text for entry in config.entries if entry.field in _VALIDATION]
    training = [entry.text for entry in config.entries if entry.field == "data.train"]
    files, unread = _files(tree, config, validation or training, changed, chat=chat)
    asked = [question for file in files for question in file.asked]
    copies = Counter(question.key for question in asked)
    if validation:
        chosen = _smallest(copies, WANTED)
    else:
        # A question that is asked over and over is the format's, not a row's.
        rare = {key: count for key, count in copies.items() if count <= _MOST_COPIES}
        chosen = _smallest(rare, min(WANTED, len(copies) // SHARE))
    if len(chosen) < LEAST:
        raise InputError(
            f"holds {len(copies)} different questions, too few to hold {LEAST} out",
            file=", ".join(file.name for file in files),
            fix="write a suite by hand, or name a file as `data.validation`",
        )
    rest = {file.name: left for file in files if (left := file.without(chosen)) is not None}
    first = {question.key: question.row for question in reversed(asked)}
    rows = tuple(first[key] for key in sorted(chosen))
    return HeldOut(
        sources=tuple(file.name for file in files),
        rest={} if validation else rest,
        questions_left=len(copies) - len(chosen),
        rows=_named(rows),
        moved=0 if validation else sum(copies[key] for key in chosen),
        slice=_slice_of(rows),
        unread=tuple(unread),
    )


def _files(
    tree: Tree,
    config: TrainingConfig,
    named: Sequence[str],
    changed: Mapping[str, bytes],
    *,
    chat: bool,
) -> tuple[list[_File], list[str]]:
    """The files that are here and whose lines hold questions with answers, and why others are not
    among them."""
    found: list[_File] = []
    why: list[str] = []
    fix: str | None = None
    for text in named:
        try:
            name = join(config.directory, text)
            if PurePosixPath(name).suffix.lower() not in _LINES:
                raise InputError("is not JSONL", file=name)
            content = changed[name] if name in changed else tree.read(name, limit=_LIMIT)
            lines = content.splitlines(keepends=True)
            asked = list(_questions(name, lines, chat=chat))
            if not asked:
                raise InputError("holds no row with a question and an answer", file=name)
        except AdapterbotError as error:
            why.append(f"{error.file or text} {error.message}")
            fix = fix or error.fix
        else:
            found.append(_File(name, lines, asked))
    if not found:
        raise InputError(
            "; ".join(why[:3]) or "names no data",
            file=config.path,
            field="data",
            fix=fix or "name a JSONL file of this repository, or write a suite by hand",
        )
    return found, why


def _questions(name: str, lines: Sequence[bytes], *, chat: bool) -> Iterator[_Asked]:
    for line, raw in enumerate(lines, 1):
        try:
            row = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict):
            continue
        found = _pair(row, name, line, chat=chat)
        if found is not None:
            question, suite_row = found
            plain = " ".join(question.split()).casefold()
            kept = {key: row[key] for key in ("id", *_SLICE_KEYS) if _is_label(row.get(key))}
            key = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
            yield _Asked(line, key, {**kept, **suite_row})


def _is_label(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return False
    return 0 < len(str(value)) <= _LONGEST_LABEL


def _pair(
    row: Mapping[str, object], name: str, line: int, *, chat: bool
) -> tuple[str, dict[str, JsonValue]] | None:
    """A row's question as text, and the row as a suite has it; None when it has no answer."""
    if isinstance(prompt := row.get("prompt"), str):
        for key in _ANSWER_KEYS:
            if isinstance(answer := row.get(key), str) and answer:
                return prompt, {"prompt": prompt, "expected": answer}
    try:
        *before, last = messages_of(row, file=name, line=line)
    except InputError:
        return None
    question = "\n".join(message["content"] for message in before)
    if not last["content"]:
        return None
    asked: dict[str, JsonValue] = {"expected": last["content"]}
    if chat:
        messages: list[JsonValue] = [dict(message) for message in before]
        return question, {"messages": messages, **asked}
    return question, {"prompt": f"{question}\n", **asked}


def _smallest(copies: Mapping[str, int], wanted: int) -> set[str]:
    return set(sorted(copies)[:wanted])


def _named(rows: Sequence[Mapping[str, JsonValue]]) -> tuple[Mapping[str, JsonValue], ...]:
    """The rows with their ids, unless those do not tell them apart."""
    ids = [row.get("id") for row in rows]
    if None not in ids and len({str(name) for name in ids}) == len(ids):
        return tuple(rows)
    return tuple({key: value for key, value in row.items() if key != "id"} for row in rows)


def _slice_of(rows: Sequence[Mapping[str, JsonValue]]) -> str | None:
    for key in _SLICE_KEYS:
        values = {str(row[key]) for row in rows if key in row}
        if 2 <= len(values) <= _MOST_SLICES and all(key in row for row in rows):
            return key
    return None
