"""Row digests beside a lock (`soup.lock.d/rows.txt`): all that is left of the locked rows where the
data itself is gone, and enough to count how many came, went and changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from adapterbot.jsonl import lines
from adapterbot.lock.row_files import Row, RowFile, Rows
from adapterbot.lock.sidecar import ROWS, Sidecar, folder
from adapterbot.tree import Tree

_FILE_LINE = "file "
_LONGEST_LINE = 64 * 1024  # a digest is half a hundred bytes, and a path some thousands at most


def rows_text(closure_sha: str, files: Mapping[str, Iterable[bytes]]) -> Iterator[str]:
    """The lines of rows.txt: the closure, then for each file its name and a digest per row."""
    yield f"closure {closure_sha}\n"
    for name, digests in files.items():
        yield f"{_FILE_LINE}{json.dumps(name)}\n"
        for digest in digests:
            yield f"{digest.hex()}\n"


def locked_rows(tree: Tree, lock_path: str, sidecar: Sidecar) -> Rows | None:
    """The rows that were locked, each known by its digest only; None where they were not kept.

    Raises:
        InputError: the file is broken; in a line that is too long, when the rows are read.
    """
    path = f"{folder(lock_path)}/{ROWS}"
    if not tree.has(path):
        return None
    with tree.open(path) as stream:
        if stream.readline(100).decode(errors="replace").split() != [
            "closure",
            sidecar.closure_sha,
        ]:
            return None
    return {
        name: RowFile(name, digest, partial(_rows_of, tree, path, name))
        for name, digest in sidecar.dataset.items()
    }


def _rows_of(tree: Tree, path: str, name: str) -> Iterator[Row]:
    inside, number = False, 0
    head = f"{_FILE_LINE}{json.dumps(name)}".encode()
    with tree.open(path) as stream:
        for _, line in lines(path, stream, limit=_LONGEST_LINE):
            if line.startswith(_FILE_LINE.encode()):
                inside = line == head
                number = 0
            elif inside:
                number += 1
                yield Row(name, number, line)
