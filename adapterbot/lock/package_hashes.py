"""What a package was installed from, in a word that fits into a soup-env.lock: the hash of its
file, or of the several that it may be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

_HASH = re.compile(r"\b(md5|sha\d+|blake2[bs])[:=]([0-9a-f]{32,128})\b", re.IGNORECASE)
_LONGEST = 128  # Soup's bound on a version


def hashes_in(text: str) -> list[str]:
    """Every `algorithm:hex` or `algorithm=hex` of a text, in lower case; of SHA-256 the hex
    alone."""
    return [
        f"{match[1]}:{match[2]}".lower().removeprefix("sha256:") for match in _HASH.finditer(text)
    ]


def hashes_of(files: Iterable[object], *keys: str) -> list[str]:
    """The hashes of every file, from `hash = "sha256:…"` or `hashes = {sha256 = "…"}`, in the form
    of `hashes_in`; of a file that has several its SHA-256."""
    found: list[str] = []
    for file in files:
        given = [file[key] for key in keys if key in file] if isinstance(file, dict) else []
        known = [
            digest
            for one in given
            for kind, value in (one.items() if isinstance(one, dict) else [("", one)])
            for digest in hashes_in(f"{kind}:{value}" if kind else str(value))
        ]
        found += [digest for digest in known if ":" not in digest][:1] or known
    return found


def of_files(hashes: Sequence[str]) -> str:
    """One text for the files that a package may be installed from, whatever their order."""
    if len(hashes) == 1:
        text = hashes[0] if ":" in hashes[0] else f"sha256:{hashes[0]}"
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    together = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    return f"{len(hashes)} files, sha256:{together}"


def bounded(text: str) -> str:
    """A text as it is, or where it is too long its beginning and its digest."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[:40]}… sha256:{hashlib.sha256(text.encode()).hexdigest()}"
