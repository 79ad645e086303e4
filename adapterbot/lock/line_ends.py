"""Whether a file is the locked one with other line ends: Git may write them as its machine has them
(`core.autocrlf`), and no two checkouts then have the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from adapterbot.errors import AdapterbotError
from adapterbot.files.tree import Tree

_PIECE = 1024 * 1024
_LOOKED_AT = 8000  # as many bytes as Git looks at, to tell a text by
# Larger ones are in Git LFS, which leaves line ends alone.
_LARGEST = 100 * 1024 * 1024

How = Callable[[str, str], str]
"""A word for what became of a file, by its name and the digest that was locked."""


def line_ends_or_more(tree: Tree, place: Callable[[str], str]) -> How:
    """Tells line ends from all else; each file is read once.

    Args:
        place: name → path in the tree; may raise InputError where there is none.
    """

    @cache
    def how(name: str, locked: str) -> str:
        with suppress(AdapterbotError):
            # Its digest once its lines end in LF, or in CRLF.
            if locked in _digests(tree, place(name)):
                return "changed in its line ends only"
        return "changed"

    return how


def _digests(tree: Tree, path: str) -> tuple[str, ...]:
    unix, dos = hashlib.sha256(), hashlib.sha256()
    with tree.open(path, fetch=False) as stream:
        held, seen = b"", 0
        while piece := stream.read(_PIECE):
            if (not seen and b"\0" in piece[:_LOOKED_AT]) or seen > _LARGEST:
                return ()
            seen += len(piece)
            piece = held + piece
            held = b"\r" if piece.endswith(b"\r") else b""
            text = piece[: len(piece) - len(held)].replace(b"\r\n", b"\n")
            unix.update(text)
            dos.update(text.replace(b"\n", b"\r\n"))
    for digest in (unix, dos):
        digest.update(held)
    return unix.hexdigest(), dos.hexdigest()
