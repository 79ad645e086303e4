"""What a base model is, by its files. No torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from adapterbot.files.tree import file_sha256
from adapterbot.lock.loaded_base import loaded_file_names

_BLOB = re.compile(r"[0-9a-f]{64}")


def base_digest(directory: Path) -> str:
    """SHA-256 over paths and contents of the files that are loaded: what else was put beside them,
    as a download of the whole repository does, changes nothing.

    Raises:
        InputError: the index of its weights is broken, or names what is not there.
    """
    whole = hashlib.sha256()
    for file in _files(directory):
        name = file.relative_to(directory).as_posix()
        whole.update(f"{name}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def _files(directory: Path) -> list[Path]:
    names = (f.relative_to(directory).as_posix() for f in directory.rglob("*") if f.is_file())
    chosen = loaded_file_names(names, lambda name: (directory / name).read_bytes())
    return sorted(directory / name for name in chosen)


def _file_digest(file: Path) -> str:
    # The Hub's cache names a large file after its own SHA-256: no need to read 16 GB again.
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
        return target.name
    return file_sha256(file)
