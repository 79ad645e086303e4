"""soup.lock as Soup writes it, byte for byte, and the closure that ties its three hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from adapterbot.errors import InputError
from adapterbot.records import Digest, Record

MAX_LOCK_BYTES = 1024 * 1024
HASHES = ("base_model_sha", "dataset_sha", "env_hash")


class Lock(Record):
    """The closure of (base model, dataset, environment); `created_at` and `soup_version` are
    advisory."""

    # Soup ignores fields that it does not know, and so a later Soup's lock must load here.
    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model: Annotated[str, Field(min_length=1, max_length=512)]
    base_model_sha: Digest
    closure_sha: Digest
    created_at: Annotated[str, Field(min_length=1, max_length=64)]
    dataset_sha: Digest
    env_hash: Digest
    soup_version: Annotated[str, Field(min_length=1, max_length=64)]


def closure(base_model_sha: str, dataset_sha: str, env_hash: str) -> str:
    """SHA-256 of the three lowercase hex strings joined (192 ASCII bytes)."""
    return hashlib.sha256(f"{base_model_sha}{dataset_sha}{env_hash}".encode("ascii")).hexdigest()


def unique_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads(object_pairs_hook=…)`: an object with a key twice has no one meaning.

    Raises:
        ValueError: naming the key.
    """
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key!r} twice")
        found[key] = value
    return found


def parse_object(content: bytes, name: str, fix: str) -> dict[str, object]:
    """A JSON object without duplicate keys.

    Raises:
        InputError: it is anything else.
    """
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=unique_object)
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", file=name, fix=fix) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"is not JSON: {error.msg}", file=name, field=f"line {error.lineno}", fix=fix
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(str(error) or "is nested too deeply", file=name, fix=fix) from error
    if not isinstance(parsed, dict):
        raise InputError("is not a JSON object", file=name, fix=fix)
    return parsed


def loads(content: bytes, name: str) -> Lock:
    """Read a lock and verify its closure.

    Raises:
        InputError: not JSON, a field missing or malformed, or a closure that its own three hashes
            do not give.
    """
    fix = "write it again with `adapterbot lock write`"
    parsed = parse_object(content, name, fix)
    try:
        lock = Lock.model_validate(parsed)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else None
        what = "is missing" if first["type"] == "missing" else "must be 64 lowercase hex characters"
        if field not in (*HASHES, "closure_sha") and first["type"] != "missing":
            what = first["msg"][0].lower() + first["msg"][1:]
        raise InputError(what, file=name, field=field, fix=fix) from error
    expected = closure(lock.base_model_sha, lock.dataset_sha, lock.env_hash)
    if lock.closure_sha != expected:
        raise InputError(
            f"is not the closure of the three hashes beside it (that is {expected[:12]}…): "
            "the file was edited",
            file=name,
            field="closure_sha",
            fix=fix,
        )
    return lock


def dumps(lock: Lock) -> str:
    """The text of the file: two-space indent, sorted keys, no newline at the end, as Soup's."""
    return json.dumps(lock.model_dump(), indent=2, sort_keys=True)
