"""The hidden first lines by which a comment of ours is found again, and told from an older one.

`render` writes the first line, `commands` the second, and `gh` looks for both; none knows the
others, so they live below all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from adapterbot.errors import InputError

DEFAULT_NAME = "adapterbot"
# An adapter's own key, or one that begins with "pr:" for the document of its pull request: no
# adapter's key can hold a colon, so neither is ever taken for the other.
_KEY = r"(?:pr:)?[a-z0-9][a-z0-9._-]{0,99}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,59}"
_LINE = re.compile(rf"<!-- adapterbot:({_KEY})(?:@({_NAME}))? -->")
_STAMP = re.compile(
    r"<!-- adapterbot-run:(\d{1,18})\.(\d{1,6}) head:([0-9a-f]{40}|[0-9a-f]{64}|-) -->"
)


def marker(key: str, name: str = DEFAULT_NAME) -> str:
    """The first line of the comment of the adapter with this key.

    Args:
        name: of the gate; two workflows that judge the same adapters have two names, so that
            neither writes into the other's comment.

    Raises:
        InputError: when `key` or `name` could end the HTML comment.
    """
    if not re.fullmatch(_KEY, key):
        raise InputError(
            f"{key[:120]!r} is not an adapter key",
            fix="use lowercase letters, digits, '.', '_' and '-', at most 100",
        )
    check_name(name)
    return f"<!-- adapterbot:{key}{'' if name == DEFAULT_NAME else f'@{name}'} -->"


def document_key(key: str) -> str:
    """The key under which the pull request document of an adapter is found."""
    return f"pr:{key}"


def is_document_key(key: str) -> bool:
    """Whether a key is the one of a document rather than of an adapter's gate."""
    return key.startswith("pr:")


def check_name(name: str) -> None:
    """Hold the name of a gate against what a marker may carry.

    Raises:
        InputError: when it could end the HTML comment, or is too long.
    """
    if not re.fullmatch(_NAME, name):
        raise InputError(
            f"{name[:120]!r} is no name for a gate",
            file="input name",
            fix="use letters, digits, spaces, '.', '_' and '-', at most 60",
        )


def key_of(body: str, name: str = DEFAULT_NAME) -> str | None:
    """The key in the first line of a comment of the gate with this name, or None.

    Only the first line counts, and all of it: a quoted or pasted marker further down, which a
    reviewer's reply or a model's output may carry, makes no comment ours.
    """
    match = _LINE.fullmatch(_line(body, 0))
    return match[1] if match and (match[2] or DEFAULT_NAME) == name else None


def _line(body: str, index: int) -> str:
    lines = re.split(r"\r\n|\r|\n", body, maxsplit=index + 1)
    return lines[index].rstrip(" \t") if len(lines) > index else ""


@dataclass(frozen=True, order=True)
class Stamp:
    """Which run of which workflow wrote a comment, and about which commit: its second line.

    Run ids grow, so of two stamps the greater is the later run's; a re-run keeps its id and counts
    attempts. Zero stands for "not from a workflow", and orders nothing.
    """

    run: int = 0
    attempt: int = 0
    head: str = ""

    @classmethod
    def of(cls, body: str) -> Self:
        """The stamp of a comment; an empty one where there is none."""
        match = _STAMP.fullmatch(_line(body, 1))
        if not match:
            return cls()
        return cls(int(match[1]), int(match[2]), match[3].removeprefix("-"))

    def on(self, body: str) -> str:
        """`body`, which begins with a marker, with this stamp on its second line."""
        first, _, rest = body.partition("\n")
        line = f"<!-- adapterbot-run:{self.run}.{self.attempt} head:{self.head or '-'} -->"
        return f"{first}\n{line}\n{rest}" if self.run else body

    def same_run(self, other: Stamp) -> bool:
        """Whether both are of one attempt of one run."""
        return (self.run, self.attempt) == (other.run, other.attempt)

    def before(self, other: Stamp) -> bool:
        """Whether the other is of a later run, about another commit."""
        return self.head != other.head and 0 < self.run < other.run

    def level(self, other: Stamp) -> bool:
        """Whether neither has the better right to be read: two runs about one commit, or two
        writers behind whom no run stands."""
        if not (self.run and other.run):
            return self.run == other.run
        return not (self.same_run(other) or self.before(other) or other.before(self))


UNSTAMPED = Stamp()
