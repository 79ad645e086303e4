"""SHA-256 of many files: as many at once as there are cores, and none twice.

A digest over several files is the SHA-256 of what `sha256sum` prints for them, sorted by path, so
that anyone can recompute it with standard tools.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from adapterbot.files.tree import Identity
from adapterbot.lock.digest_cache import DigestCache


class Hashable(Protocol):
    """What of a `Tree` hashing needs."""

    def identity(self, path: str) -> Identity | None:
        """As `Tree.identity`."""

    def sha256(self, path: str) -> str:
        """As `Tree.sha256`."""


def combined(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files, whatever their order.

    Args:
        digests: path → SHA-256 in lowercase hex.
    """
    listing = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def hash_files(
    tree: Hashable,
    names: Iterable[str],
    cache: DigestCache | None = None,
    *,
    workers: int | None = None,
) -> dict[str, str]:
    """Path → SHA-256 of every file, in the order of `names`.

    Args:
        cache: digests from earlier runs, taken where nothing about the file moved.
        workers: threads, since hashing gives Python's lock away; the number of cores.

    Raises:
        InputError: as `Tree.sha256`, for the first file that cannot be hashed.
    """
    wanted = list(dict.fromkeys(names))
    found: dict[str, str | None] = dict.fromkeys(wanted)
    identities: dict[str, Identity] = {}
    for name in wanted if cache else ():
        identity = tree.identity(name)
        if cache and identity:
            identities[name] = identity
            found[name] = cache.get(identity)
    missing = [name for name in wanted if found[name] is None]
    fresh = _hash_all(tree, missing, workers or _cores())
    for name, identity in identities.items():
        # A file that was touched meanwhile is hashed again next time.
        if cache and name in fresh and tree.identity(name) == identity:
            cache.put(identity, fresh[name])
    return {name: found[name] or fresh[name] for name in wanted}


def _hash_all(tree: Hashable, names: list[str], workers: int) -> dict[str, str]:
    if len(names) < 2 or workers < 2:
        return {name: tree.sha256(name) for name in names}
    from concurrent.futures import ThreadPoolExecutor

    # A few files a task, so that handing them out costs nothing beside hashing them.
    step = max(1, min(32, len(names) // (4 * workers)))
    chunks = [names[i : i + step] for i in range(0, len(names), step)]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        digests = pool.map(lambda chunk: [tree.sha256(name) for name in chunk], chunks)
        return {
            name: digest
            for chunk, found in zip(chunks, digests, strict=True)
            for name, digest in zip(chunk, found, strict=True)
        }


def _cores() -> int:
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
