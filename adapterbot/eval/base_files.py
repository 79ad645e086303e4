"""What a base model is, by its files. No torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from adapterbot.files.tree import file_sha256

_BLOB = re.compile(r"[0-9a-f]{64}")


def base_digest(directory: Path) -> str:
    """SHA-256 over paths and contents of the files that decide what the base model says."""
    whole = hashlib.sha256()
    for file in _files(directory):
        name = file.relative_to(directory).as_posix()
        whole.update(f"{name}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    # Below it too: transformers reads chat templates from a folder of their own.
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.suffix in {".safetensors", ".json", ".model", ".jinja", ".txt"}:
            yield file


def _file_digest(file: Path) -> str:
    # The Hub's cache names a large file after its own SHA-256: no need to read 16 GB again.
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
        return target.name
    return file_sha256(file)
