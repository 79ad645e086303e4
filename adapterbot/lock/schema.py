"""soup.lock as Soup writes it, byte for byte, and the closure that ties its three hashes.

Checked by hand rather than by pydantic, here and in the modules beside: a lock check runs on every
commit, and importing pydantic would be half of its time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from adapterbot.errors import InputError
from adapterbot.files.strict_json import DuplicateKeyError, unique_object

SOUP_LOCK = "soup.lock"
MAX_LOCK_BYTES = 1024 * 1024
HASHES = ("base_model_sha", "dataset_sha", "env_hash")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Soup's own bounds, so that a lock of ours loads there.
_TEXTS = {"base_model": 512, "created_at": 64, "soup_version": 64}


@dataclass(frozen=True)
class Lock:
    """The closure of (base model, dataset, environment); `created_at` and `soup_version` are
    advisory."""

    base_model: str
    base_model_sha: str
    closure_sha: str
    created_at: str
    dataset_sha: str
    env_hash: str
    soup_version: str


def closure(base_model_sha: str, dataset_sha: str, env_hash: str) -> str:
    """SHA-256 of the three lowercase hex strings joined (192 ASCII bytes)."""
    return hashlib.sha256(f"{base_model_sha}{dataset_sha}{env_hash}".encode("ascii")).hexdigest()


def sha256_text(value: object, *, file: str | None, field: str | None, fix: str) -> str:
    """`value`, which must be a SHA-256 as we write it.

    Raises:
        InputError: it is anything else; says what is wrong with it.
    """
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value
    hint = ""
    if isinstance(value, str):
        if _SHA256.fullmatch(value.lower()):
            hint = ", not upper-case ones"
        elif value != value.strip():
            hint = ", without space or a newline around them"
        elif len(value) != 64:
            hint = f", not {len(value)}"
    raise InputError(f"must be 64 lowercase hex characters{hint}", file=file, field=field, fix=fix)


def line_text(value: object, limit: int, *, file: str, field: str, fix: str) -> str:
    """`value`, which must be a line of text: not empty, not long, no control characters.

    Raises:
        InputError: it is anything else.
    """
    what = None
    if not isinstance(value, str):
        what = "must be text"
    elif not value:
        what = "is empty"
    elif len(value) > limit:
        what = f"is longer than {limit} characters"
    elif any(ord(character) < 32 or ord(character) == 127 for character in value):
        what = "holds a control character"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        what = "holds half of a surrogate pair"
    if what:
        raise InputError(what, file=file, field=field, fix=fix)
    return str(value)


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
    except DuplicateKeyError as error:
        raise InputError(f"has the key {error.key!r} twice", file=name, fix=fix) from error
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        said = "is nested too deeply" if deep else str(error)
        raise InputError(said, file=name, fix=fix) from error
    if not isinstance(parsed, dict):
        raise InputError("is not a JSON object", file=name, fix=fix)
    return parsed


def required(parsed: Mapping[str, object], field: str, *, file: str, fix: str) -> object:
    """A field that must be there.

    Raises:
        InputError: it is not.
    """
    if field not in parsed:
        raise InputError("is missing", file=file, field=field, fix=fix)
    return parsed[field]


def rewriting(path: str) -> str:
    """The command that writes a lock again, run where `path` starts from."""
    return with_output("adapterbot lock write", path, SOUP_LOCK)


def with_output(command: str, path: str, usual: str) -> str:
    """A command that writes to `path`, which it does by itself where that is the usual one."""
    return command if path == usual else f"{command} -o {shlex.quote(path)}"


def loads(content: bytes, name: str) -> Lock:
    """Read a lock and verify its closure. Fields that we do not know are a later Soup's, and pass.

    Raises:
        InputError: not JSON, a field missing or malformed, or a closure that its own three hashes
            do not give.
    """
    fix = "write it again with `adapterbot lock write`"
    parsed = parse_object(content, name, fix)
    values = {
        field: line_text(
            required(parsed, field, file=name, fix=fix), limit, file=name, field=field, fix=fix
        )
        for field, limit in _TEXTS.items()
    }
    for field in (*HASHES, "closure_sha"):
        given = required(parsed, field, file=name, fix=fix)
        values[field] = sha256_text(given, file=name, field=field, fix=fix)
    lock = Lock(**values)
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
    return json.dumps(asdict(lock), indent=2, sort_keys=True)
