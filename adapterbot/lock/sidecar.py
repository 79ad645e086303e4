"""What a lock has no field for, in a folder beside it (`soup.lock.d`): the digest of every file,
the environment by package, the training settings, the adapter's files, and on request every row.

It makes a drift explainable and is otherwise advisory. It is bound to its lock by the closure, and
its lists of files are believed only where they give the very hash that the lock holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from adapterbot.errors import InputError
from adapterbot.files.tree import TEXT_LIMIT, Tree
from adapterbot.lock.schema import Lock, line_text, parse_object, required, sha256_text
from adapterbot.lock.training import MAX_SETTING

FILE = "pinned.json"
ROWS = "rows.txt"
_FIX = "write it again with `adapterbot lock write`"


@dataclass(frozen=True)
class Sidecar:
    """Paths are relative to soup.yaml; those of the base model to its own folder.

    Attributes:
        adapters: adapter directory → its files → SHA-256.
    """

    closure_sha: str
    base: Mapping[str, str]
    dataset: Mapping[str, str]
    environment: Mapping[str, str]
    settings: Mapping[str, str]
    adapters: Mapping[str, Mapping[str, str]]


def folder(lock_path: str) -> str:
    """Where the sidecar of a lock lies."""
    return f"{lock_path}.d"


def dumps(sidecar: Sidecar) -> str:
    """The text of the file. Lists of files too long to be read again are left out: they explain a
    drift, and a lock holds without them."""
    text = _text(sidecar)
    return text if len(text) <= TEXT_LIMIT else _text(replace(sidecar, base={}, dataset={}))


def _text(sidecar: Sidecar) -> str:
    return json.dumps({"version": 1, **asdict(sidecar)}, indent=1, sort_keys=True) + "\n"


def read(tree: Tree, lock_path: str, lock: Lock) -> Sidecar | None:
    """The sidecar of a lock; None where there is none, or where it belongs to an earlier lock.

    Raises:
        InputError: it is broken.
    """
    path = f"{folder(lock_path)}/{FILE}"
    if not tree.has(path):
        return None
    found = loads(tree.read(path), path)
    return found if found.closure_sha == lock.closure_sha else None


def loads(content: bytes, name: str) -> Sidecar:
    """Read a sidecar.

    Raises:
        InputError: naming the field and the fix.
    """
    parsed = parse_object(content, name, _FIX)
    if parsed.get("version") != 1:
        raise InputError("is not 1", file=name, field="version", fix=_FIX)

    def texts(field: str, given: object, *, digests: bool) -> dict[str, str]:
        if not isinstance(given, dict):
            raise InputError("must be an object", file=name, field=field, fix=_FIX)
        for key, value in given.items():
            where = f"{field}[{key[:100]!r}]"
            if digests:
                sha256_text(value, file=name, field=where, fix=_FIX)
            else:
                line_text(value, MAX_SETTING, file=name, field=where, fix=_FIX)
        return given

    def part(field: str, *, digests: bool) -> dict[str, str]:
        return texts(field, required(parsed, field, file=name, fix=_FIX), digests=digests)

    adapters = parsed.get("adapters", {})
    if not isinstance(adapters, dict):
        raise InputError("must be an object", file=name, field="adapters", fix=_FIX)
    return Sidecar(
        closure_sha=sha256_text(
            parsed.get("closure_sha"), file=name, field="closure_sha", fix=_FIX
        ),
        base=part("base", digests=True),
        dataset=part("dataset", digests=True),
        environment=part("environment", digests=False),
        settings=part("settings", digests=False),
        adapters={
            path: texts(f"adapters[{path[:100]!r}]", files, digests=True)
            for path, files in adapters.items()
        },
    )
