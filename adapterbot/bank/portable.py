"""A bank as one safetensors file: what travels, is committed to Git, and may come from a stranger.

Its header is checked before anything else, nothing in it is an offset that anybody follows, and the
same users give the same bytes. Tensors: `rows` (n, row bytes) as the codec writes them, `users`
their names in UTF-8 one behind the other with `users_ends`, and the shared tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapterbot.bank.codec import Bytes, Codec, Rows
from adapterbot.bank.manifest import (
    FORMAT,
    Manifest,
    Stored,
    dump_manifest,
    parse_manifest,
    user_key,
)
from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.weights.header import Header, read_header

if TYPE_CHECKING:
    from adapterbot.bank.store import BankStore

_KEY = "adapterbot.bank"
_FIX = "export the bank again"
_KINDS: Mapping[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I64": np.dtype(np.int64),
    "F32": np.dtype(np.float32),
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# Bytes of rows that are held in memory while a bank is written.
_AT_ONCE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Portable:
    """An opened file; rows are read from it when they are asked for.

    Attributes:
        file: where it is.
        manifest: what its rows are.
        users: their names, each once, in byte order.
        raw: (n, row bytes), mapped.
    """

    file: Path
    manifest: Manifest
    users: tuple[str, ...]
    raw: Bytes

    def rows(self, indices: Sequence[int]) -> Rows:
        """The decoded rows of these users, by their place in `users`.

        Raises:
            InputError: a number is not finite, or a choice is of a vector that is not there.
        """
        codec = Codec(self.manifest)
        rows = codec.decode(np.ascontiguousarray(self.raw[list(indices)]))
        codec.check(rows, [self.users[index] for index in indices])
        return rows

    def batches(self, size: int) -> Iterator[tuple[tuple[str, ...], Rows]]:
        """All users and rows, `size` at a time."""
        for start in range(0, len(self.users), size):
            users = self.users[start : start + size]
            yield users, self.rows(range(start, start + len(users)))


def write_portable(
    store: BankStore,
    file: Path,
    users: Sequence[str] | None = None,
    *,
    kept: Stored | None = None,
    shared: Mapping[str, NDArray[np.float32]] | None = None,
) -> int:
    """Writes users of a bank into one file; how many there were.

    Args:
        store: the bank.
        file: where to.
        users: whom; all of them by default.
        kept: how the file notes `shared`.
        shared: the shared tensors, to be kept in the file.

    Raises:
        InputError: there is no such user, or the place cannot be written.
    """
    wanted = None if users is None else sorted(set(users), key=str.encode)
    with store.picked(wanted) as (names, rows):
        text = [user_key(name) for name in names]
        tensors: dict[str, NDArray[Any]] = {
            "users": np.frombuffer(b"".join(text), np.uint8),
            "users_ends": np.cumsum([len(part) for part in text], dtype=np.int64),
            **{f"shared.{name}": np.ascontiguousarray(t) for name, t in (shared or {}).items()},
        }
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            name: (_NAMES[tensor.dtype], tensor.shape) for name, tensor in tensors.items()
        }
        size = store.codec.row_bytes
        shapes["rows"] = ("U8", (len(names), size))
        # Where a bank keeps its rows is its own affair; the same users give the same file.
        manifest = store.manifest.model_copy(
            update={"rows": "rows-1.mdb", "shared": kept or store.manifest.shared}
        )
        header, order = _header(shapes, {_KEY: dump_manifest(manifest)})

        def parts() -> Iterator[bytes | memoryview]:
            yield header
            for name in order:
                if name == "rows":
                    yield from (part.data for part in rows(max(1, _AT_ONCE // size)))
                else:
                    yield tensors[name].data

        atomic.write_parts(file, parts())
        return len(names)


def _header(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The beginning of a safetensors file, and its tensors in the order in which they follow: byte
    for byte what the library writes, which takes all of them in memory at once."""
    order = sorted(shapes, key=lambda name: (-_KINDS[shapes[name][0]].itemsize, name))
    entries: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name in order:
        kind, shape = shapes[name]
        stop = start + math.prod(shape) * _KINDS[kind].itemsize
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def read_portable(file: Path, *, shown: str | None = None) -> Portable:
    """Opens a file, everything in it checked but the numbers themselves.

    Raises:
        InputError: it is not one, or contradicts itself.
    """
    name = shown or str(file)
    if file.is_symlink():
        raise InputError("is a symbolic link", file=name, fix="name the file itself")
    header = read_header(file, shown=name)
    if _KEY not in header.metadata:
        raise InputError(
            "is not an exported bank", file=name, fix="make one with `adapterbot bank export`"
        )
    manifest = parse_manifest(header.metadata[_KEY], name).model_copy(update={"format": FORMAT})
    raw = _tensor(file, header, "rows", "U8", 2, name)
    size = Codec(manifest).row_bytes
    users = _names(file, header, name)
    if raw.shape != (len(users), size):
        raise InputError(
            f"holds rows of shape {raw.shape} for {len(users)} users of {size} bytes",
            file=name,
            field="rows",
            fix=_FIX,
        )
    return Portable(file, manifest, users, raw)


def shared_of(portable: Portable) -> dict[str, np.ndarray]:
    """The shared tensors that the file brings; empty where the manifest gives a seed."""
    header = read_header(portable.file)
    names = [name for name in header.tensors if name.startswith("shared.")]
    return {
        name.removeprefix("shared."): _tensor(
            portable.file, header, name, "F32", 2, str(portable.file)
        )
        for name in names
    }


def _names(file: Path, header: Header, shown: str) -> tuple[str, ...]:
    text = _tensor(file, header, "users", "U8", 1, shown).tobytes()
    ends = _tensor(file, header, "users_ends", "I64", 1, shown).tolist()
    found: list[str] = []
    before, last = 0, b""
    for end in ends:
        part = text[before:end] if before <= end <= len(text) else b""
        # In order and each once: a file says one thing only, whoever reads it.
        if part <= last:
            raise InputError("are not in order", file=shown, field="users", fix=_FIX)
        try:
            found.append(part.decode())
            user_key(found[-1])
        except (UnicodeDecodeError, InputError) as error:
            raise InputError("holds a bad name", file=shown, field="users", fix=_FIX) from error
        before, last = end, part
    if before != len(text):
        raise InputError("has text behind the last name", file=shown, field="users", fix=_FIX)
    return tuple(found)


def _tensor(
    file: Path, header: Header, name: str, kind: str, dimensions: int, shown: str
) -> np.ndarray:
    info = header.tensors.get(name)
    if info is None or info.dtype != kind or len(info.shape) != dimensions:
        raise InputError(f"has no {kind} tensor of that name", file=shown, field=name, fix=_FIX)
    if 0 in info.shape:
        return np.zeros(info.shape, _KINDS[kind])
    # The format aligns nothing, so bytes are mapped and looked at as numbers afterwards.
    raw = np.memmap(file, np.uint8, "r", info.start, (info.stop - info.start,))
    return raw.view(_KINDS[kind]).reshape(info.shape)
