"""The hidden first line by which a comment of ours is found again.

`render` writes it and `gh` looks for it; neither knows the other, so it lives below both.
"""

from __future__ import annotations

import re

from adapterbot.errors import InputError

# An adapter's own key, or one that begins with "pr:" for the document of its pull request: no
# adapter's key can hold a colon, so neither is ever taken for the other.
_KEY = r"(?:pr:)?[a-z0-9][a-z0-9._-]{0,99}"
_LINE = re.compile(rf"<!-- adapterbot:({_KEY}) -->")


def marker(key: str) -> str:
    """The first line of the comment of the adapter with this key.

    Raises:
        InputError: when `key` is not an adapter key, so that no key can end the HTML comment.
    """
    if not re.fullmatch(_KEY, key):
        raise InputError(
            f"{key[:120]!r} is not an adapter key",
            fix="use lowercase letters, digits, '.', '_' and '-', at most 100",
        )
    return f"<!-- adapterbot:{key} -->"


def document_key(key: str) -> str:
    """The key under which the pull request document of an adapter is found."""
    return f"pr:{key}"


def is_document_key(key: str) -> bool:
    """Whether a key is the one of a document rather than of an adapter's gate."""
    return key.startswith("pr:")


def key_of(body: str) -> str | None:
    """The key in the first line of a comment, or None.

    Only the first line counts, and all of it: a quoted or pasted marker further down, which a
    reviewer's reply or a model's output may carry, makes no comment ours.
    """
    match = _LINE.fullmatch(re.split(r"\r\n|\r|\n", body, maxsplit=1)[0].rstrip(" \t"))
    return match[1] if match else None
