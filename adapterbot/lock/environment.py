"""soup-env.lock: the packages of a training environment, in Soup's layout and with Soup's hash."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib import metadata
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from adapterbot.errors import InputError
from adapterbot.lock.schema import parse_object
from adapterbot.records import Record

DEFAULT_NAME = "soup-env.lock"
Source = Literal["pip", "conda", "system", "wheel", "unknown"]


class Package(Record):
    """One installed distribution."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    version: Annotated[str, Field(min_length=1, max_length=128)]
    source: Source = "pip"


class EnvLock(Record):
    """soup-env.lock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal["1"] = "1"
    soup_version: Annotated[str, Field(min_length=1, max_length=64)]
    python_version: Annotated[str, Field(min_length=1, max_length=64)]
    platform: Annotated[str, Field(min_length=1, max_length=256)]
    cuda_version: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    entries: Annotated[tuple[Package, ...], Field(max_length=4096)]
    created_at: Annotated[str, Field(min_length=1, max_length=64)]


def snapshot(created_at: str, version: str) -> EnvLock:
    """Every distribution installed beside this interpreter, sorted by name."""
    packages = {
        distribution.metadata["Name"].lower().replace("_", "-"): distribution.version
        for distribution in metadata.distributions()
        if distribution.metadata["Name"]
    }
    torch = packages.get("torch", "")
    return EnvLock(
        soup_version=version,
        python_version=".".join(str(part) for part in sys.version_info[:3]),
        platform=f"{platform.system().lower()}-{platform.machine().lower()}",
        # torch's local version carries its build: 2.13.0+cu130, 2.13.0+cpu.
        cuda_version=torch.partition("+cu")[2] or None,
        entries=tuple(Package(name=name, version=packages[name]) for name in sorted(packages)),
        created_at=created_at,
    )


def env_hash(lock: EnvLock) -> str:
    """SHA-256 over everything but `created_at` and the schema version, in Soup's canonical form."""
    entries = sorted(
        (entry.model_dump() for entry in lock.entries),
        key=lambda entry: (entry["name"], entry["version"], entry["source"]),
    )
    payload = {
        "soup_version": lock.soup_version,
        "python_version": lock.python_version,
        "platform": lock.platform,
        "cuda_version": lock.cuda_version,
        "entries": entries,
    }
    canonical = json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def dumps(lock: EnvLock) -> str:
    """The text of the file, in Soup's order of keys."""
    return json.dumps(lock.model_dump(), indent=2, ensure_ascii=False)


def loads(content: bytes, name: str) -> EnvLock:
    """Read a soup-env.lock.

    Raises:
        InputError: naming the field and the fix.
    """
    fix = "write it again with `adapterbot env lock`"
    try:
        return EnvLock.model_validate(parse_object(content, name, fix))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise InputError(first["msg"].lower(), file=name, field=field, fix=fix) from error


def explain(old: EnvLock, new: EnvLock) -> tuple[str, ...]:
    """What changed, a package a line: `transformers 5.22.0 → 5.23.0`."""
    before = {entry.name: entry.version for entry in old.entries}
    after = {entry.name: entry.version for entry in new.entries}
    changes = [
        f"{label} {left} → {right}"
        for label, left, right in (
            ("Python", old.python_version, new.python_version),
            ("platform", old.platform, new.platform),
            ("CUDA", old.cuda_version or "none", new.cuda_version or "none"),
            ("soup", old.soup_version, new.soup_version),
        )
        if left != right
    ]
    changes += [
        f"{name} {before.get(name, 'absent')} → {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return tuple(changes)
