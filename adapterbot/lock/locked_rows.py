"""Row digests beside a lock (`soup.lock.d/rows.txt`): all that is left of the locked rows where the
data itself is gone, and enough to count how many came, went and changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import BinaryIO

from adapterbot.files.jsonl import lines
from adapterbot.files.tree import Tree
from adapterbot.lock.row_files import Row, RowFile, Rows
from adapterbot.lock.sidecar import ROWS, Sidecar, folder

_FILE = b"file "
_LONGEST_LINE = 64 * 1024  # a digest is half a hundred bytes, and a path some thousands at most


def rows_text(closure_sha: str, files: Mapping[str, Iterable[bytes]]) -> Iterator[str]:
    """The lines of rows.txt: the closure, then for each file its name and a digest per row."""
    yield f"closure {closure_sha}\n"
    for name, digests in files.items():
        yield f"{_head(name).decode()}\n"
        for digest in digests:
            yield f"{digest.hex()}\n"


def locked_rows(tree: Tree, lock_path: str, sidecar: Sidecar) -> Rows | None:
    """The rows that were locked, each known by its digest only; None where they were not kept.

    Raises:
        InputError: the file is broken; in a line that is too long, when the rows are read.
    """
    path = f"{folder(lock_path)}/{ROWS}"
    if tree.files(path) != (path,):  # none, or a folder
        return None
    with tree.on_disk(path).open("rb") as stream:
        if stream.readline(100).decode(errors="replace").split() != [
            "closure",
            sidecar.closure_sha,
        ]:
            return None
        heads = {_head(name): name for name in sidecar.dataset}
        places = _places(stream, heads)
    return {
        name: RowFile(name, digest, partial(_rows_of, tree, path, name, places.get(name)))
        for name, digest in sidecar.dataset.items()
    }


def _head(name: str) -> bytes:
    return _FILE + json.dumps(name).encode()


def _places(stream: BinaryIO, heads: Mapping[bytes, str]) -> dict[str, int]:
    """Where the digests of each data file begin, so that one is read without those before it.

    Args:
        heads: the line that a file's digests stand under → the file.
    """
    found: dict[str, int] = {}
    at = stream.tell()
    while line := stream.readline(_LONGEST_LINE):
        at += len(line)
        name = heads.get(line.rstrip()) if line.startswith(_FILE) else None
        if name is not None:
            found.setdefault(name, at)
    return found


def _rows_of(tree: Tree, path: str, name: str, place: int | None) -> Iterator[Row]:
    if place is None:
        return
    with tree.on_disk(path).open("rb") as stream:
        stream.seek(place)
        for number, line in lines(path, stream, limit=_LONGEST_LINE):
            if line.startswith(_FILE):
                return
            yield Row(name, number, line)
