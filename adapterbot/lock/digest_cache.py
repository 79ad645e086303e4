"""Digests of files that were hashed before, in the user's cache directory.

A file is taken as unchanged while its path, size, modification and change times, and inode are what
they were: the rule that Git's index and make trust. The cache is a help, never a source of errors:
one that is damaged, locked or in the way is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from adapterbot.errors import AdapterbotError
from adapterbot.files import atomic
from adapterbot.files.tree import Identity

MAX_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 200_000


def users_caches(environment: Mapping[str, str]) -> Path | None:
    """This user's folder for what may be lost at any time; None for a user without a home."""
    if given := environment.get("XDG_CACHE_HOME"):
        return Path(given) / "adapterbot"
    try:
        return Path.home() / ".cache" / "adapterbot"
    except RuntimeError:
        return None


def default_path() -> Path | None:
    """Where the cache lies: in `$ADAPTERBOT_CACHE`, or in `users_caches`."""
    given = os.environ.get("ADAPTERBOT_CACHE")
    folder = Path(given) if given else users_caches(os.environ)
    return folder / "digests.json" if folder else None


class DigestCache:
    """Where a file lies → what it looked like, and its SHA-256 then.

    Two processes that save at once do not spoil each other's work: the file is replaced whole, and
    what the loser had found is found again.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = _read(path) if path else {}
        self._fresh: dict[str, str] = {}

    def get(self, identity: Identity) -> str | None:
        """The digest of a file that has not moved since, or None."""
        where, looks = identity
        looked, _, digest = self._known.get(where, "").rpartition(" ")
        return digest if digest and looked == looks else None

    def put(self, identity: Identity, digest: str) -> None:
        """Remember a digest; `save` writes it down."""
        where, looks = identity
        self._known[where] = self._fresh[where] = f"{looks} {digest}"

    def save(self) -> None:
        """Write down what is new. That this fails is nobody's business."""
        if not self._fresh or self._path is None:
            return
        entries = {**_read(self._path), **self._fresh}
        newest = dict(list(entries.items())[-MAX_ENTRIES:])
        text = json.dumps(newest, separators=(",", ":"))
        with suppress(AdapterbotError, OSError):
            atomic.write_text(self._path, f"{_checksum(text.encode())}\n{text}")
        self._fresh = {}


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> dict[str, str]:
    """What the file holds, or nothing when it is not wholly what we wrote."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        checksum, _, content = path.read_bytes().partition(b"\n")
        if checksum.decode("ascii") != _checksum(content):
            return {}
        found: dict[str, str] = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return {}
    return found
