"""What a job tells the runner: annotations, groups, outputs, the summary. No PyGithub here.

The runner reads commands from standard output and error, so text that a model or a contributor
wrote is a way in. It reaches a log through `guarded` (blocks) or `harmless` (lines), or as
the escaped message of an annotation, and never as it is. The grammar is the runner's own:
github.com/actions/runner, src/Runner.Common/ActionCommand.cs and FileCommandManager.cs.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adapterbot.errors import OurFailure

ENDGROUP = "::endgroup::"
SUMMARY_LIMIT = 1024 * 1024
_CUT = "\n\n_The rest did not fit into the job summary._\n"
_ANYWHERE = re.compile(r"#(?=[^0-9A-Za-z\s]*\[)")
_OUTPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


class Level(StrEnum):
    """How loud an annotation is."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


def escape_data(text: str) -> str:
    """Escape the message of a command. The percent sign first, or it would escape the escapes."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Escape the value of a command's property."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


@dataclass(frozen=True)
class Note:
    """Something to say about a file, a line of it, or the whole run. Any text is safe in it."""

    level: Level
    message: str
    file: str | None = None
    line: int | None = None
    title: str | None = None


def annotation(note: Note) -> str:
    """One line that the runner turns into an annotation, on a file's line when it is known."""
    line = None if note.line is None else str(note.line)
    properties = {"file": note.file, "line": line, "title": note.title}
    given = ",".join(f"{k}={escape_property(v)}" for k, v in properties.items() if v)
    return f"::{note.level}{' ' + given if given else ''}::{escape_data(note.message)}"


def group(title: str) -> str:
    """Open a foldable group in the log; `ENDGROUP` closes it."""
    return f"::group::{escape_data(title)}"


def mask(secret: str) -> str:
    """Ask the runner to star a value out of every log from here on."""
    return f"::add-mask::{escape_data(secret)}"


def guarded(text: str) -> str:
    """Untrusted text between a stop-commands pair, for a log that should show it as it is.

    The token is random, so the text cannot resume commands. Print the result in one write: what
    another thread prints in between loses its commands too.
    """
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}\n{text}\n::{token}::"


def harmless(text: str) -> str:
    """Untrusted text as part of a log line of ours: one line, and no command wherever it stands.

    Control and format characters, among them line ends, ANSI escapes, bidi overrides and zero-width
    characters, are written out. The last matter twice: the runner compares by culture, so a
    zero-width space before "::" hides nothing from it.
    """
    visible = "".join(_shown(character) for character in text)
    # "::" opens a command at the start of a line, "##[" anywhere in it.
    spaced = re.sub(r":(?=[^0-9A-Za-z\s]*:)", ": ", visible)
    return _ANYWHERE.sub("# ", spaced)


def harmless_json(document: str) -> str:
    """A JSON document that may be printed where the runner reads: the same values, no command.

    No line of JSON starts with "::". A "#" is only ever part of a string, where it may be escaped.
    """
    return _ANYWHERE.sub(r"\\u0023", document)


def write_outputs(path: Path, outputs: Mapping[str, str]) -> None:
    """Append to the file that GITHUB_OUTPUT names, each value between random delimiters.

    A value with line ends could otherwise set outputs of its own.

    Raises:
        OurFailure: a name that is no output name, or a file that cannot be written.
    """
    blocks: list[str] = []
    for name, value in outputs.items():
        if not _OUTPUT_NAME.fullmatch(name):
            raise OurFailure(f"{name!r} is not an output name")
        delimiter = f"adapterbot_{secrets.token_hex(16)}"
        blocks.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    _append(path, "".join(blocks))


def append_summary(path: Path, markdown: str) -> None:
    """Append to the file that GITHUB_STEP_SUMMARY names.

    GitHub drops a summary over 1 MiB whole, so a longer one is cut at a line end and says so.

    Raises:
        OurFailure: the file cannot be written.
    """
    room = SUMMARY_LIMIT - (path.stat().st_size if path.exists() else 0)
    encoded = (markdown.rstrip("\n") + "\n").encode("utf-8", "replace")
    if len(encoded) > room:
        kept = encoded[: max(0, room - len(_CUT.encode()))]
        encoded = kept[: kept.rfind(b"\n") + 1] + _CUT.encode()
    if len(encoded) <= room:
        _append(path, encoded.decode("utf-8"))


def _shown(character: str) -> str:
    if character == "\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _append(path: Path, text: str) -> None:
    try:
        # newline="": a value keeps the line ends that it has.
        with path.open("a", encoding="utf-8", errors="replace", newline="") as file:
            file.write(text)
    except OSError as error:
        raise OurFailure(f"cannot write: {error.strerror}", file=str(path)) from error
