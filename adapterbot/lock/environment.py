"""soup-env.lock: the packages of a training environment, in Soup's layout and with Soup's hash.

Soup's entries have a name, a version and a source, and its hash covers no more; what else tells a
package from others (the hash of its wheel, the commit that it was built from) is therefore an entry
of its own, of source `wheel`. Where entries come from is for `env_installed` and `env_sources`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from adapterbot.errors import InputError
from adapterbot.lock.schema import line_text, parse_object, required, sha256_text

DEFAULT_NAME = "soup-env.lock"
NO_SOUP = "none"
_SOURCES = ("pip", "conda", "system", "wheel", "unknown")
# Soup's own bounds.
_MAX_ENTRIES = 4096
_TEXTS = {"soup_version": 64, "python_version": 64, "platform": 256, "created_at": 64}
_FIX = "write it again with `adapterbot env lock`"


@dataclass(frozen=True)
class Package:
    """One installed distribution; of source `wheel`, what it was installed from."""

    name: str
    version: str
    source: str = "pip"


@dataclass(frozen=True)
class MadeFrom:
    """The project's own lock file that an environment was read from, relative to soup-env.lock."""

    file: str
    sha256: str


@dataclass(frozen=True)
class EnvLock:
    """soup-env.lock. `made_from` is our addition, which Soup passes over."""

    soup_version: str
    python_version: str
    platform: str
    cuda_version: str | None
    entries: tuple[Package, ...]
    created_at: str
    made_from: MadeFrom | None = None


def in_order(packages: Iterable[Package]) -> tuple[Package, ...]:
    """By name; what a package was installed from before its version, since Soup's `env check` goes
    by the last entry of a name."""
    return tuple(
        sorted(set(packages), key=lambda p: (p.name, p.source != "wheel", p.version, p.source))
    )


def env_hash(lock: EnvLock) -> str:
    """SHA-256 over everything but `created_at` and the schema version, in Soup's canonical form."""
    entries = sorted(
        (asdict(entry) for entry in lock.entries),
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
    content: dict[str, object] = {"schema_version": "1", **asdict(lock)}
    if lock.made_from is None:
        del content["made_from"]
    return json.dumps(content, indent=2, ensure_ascii=False)


def loads(content: bytes, name: str) -> EnvLock:
    """Read a soup-env.lock.

    Raises:
        InputError: naming the field and the fix.
    """
    parsed = parse_object(content, name, _FIX)
    if parsed.get("schema_version", "1") != "1":
        raise InputError(
            "is of a later version", file=name, field="schema_version", fix="update adapterbot"
        )
    texts = {
        field: line_text(
            required(parsed, field, file=name, fix=_FIX), limit, file=name, field=field, fix=_FIX
        )
        for field, limit in _TEXTS.items()
    }
    cuda = parsed.get("cuda_version")
    entries = required(parsed, "entries", file=name, fix=_FIX)
    if not isinstance(entries, list) or len(entries) > _MAX_ENTRIES:
        raise InputError(
            f"must be a list of at most {_MAX_ENTRIES:,} packages",
            file=name,
            field="entries",
            fix=_FIX,
        )
    return EnvLock(
        **texts,
        cuda_version=None
        if cuda is None
        else line_text(cuda, 64, file=name, field="cuda_version", fix=_FIX),
        entries=tuple(
            _package(entry, name, f"entries[{index}]") for index, entry in enumerate(entries)
        ),
        made_from=_made_from(parsed["made_from"], name) if parsed.get("made_from") else None,
    )


def _package(entry: object, name: str, field: str) -> Package:
    if not isinstance(entry, dict):
        raise InputError("must be an object", file=name, field=field, fix=_FIX)
    source = entry.get("source", "unknown")
    if source not in _SOURCES:
        raise InputError(
            f"must be one of {', '.join(_SOURCES)}", file=name, field=f"{field}.source", fix=_FIX
        )
    return Package(
        name=line_text(entry.get("name"), 256, file=name, field=f"{field}.name", fix=_FIX),
        version=line_text(entry.get("version"), 128, file=name, field=f"{field}.version", fix=_FIX),
        source=source,
    )


def _made_from(given: object, name: str) -> MadeFrom:
    found = given if isinstance(given, dict) else {}
    return MadeFrom(
        file=line_text(found.get("file"), 1000, file=name, field="made_from.file", fix=_FIX),
        sha256=sha256_text(found.get("sha256"), file=name, field="made_from.sha256", fix=_FIX),
    )


def normalised(name: str) -> str:
    """As the package index does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def checked(lock: EnvLock) -> EnvLock:
    """The lock as it will be read again: within Soup's bounds.

    Raises:
        InputError: naming the package that is not.
    """
    return loads(dumps(lock).encode(), "the environment")


def facts(lock: EnvLock) -> dict[str, str]:
    """What a reader calls each part of an environment → what it is: `transformers` → `5.22.0`."""
    versions: dict[str, list[str]] = defaultdict(list)
    for entry in in_order(lock.entries):
        label = f"{entry.name} (wheel)" if entry.source == "wheel" else entry.name
        versions[label].append(entry.version)
    return {
        "Python": lock.python_version,
        "platform": lock.platform,
        "CUDA": lock.cuda_version or "none",
        "Soup": lock.soup_version,
        **{label: " and ".join(found) for label, found in versions.items()},
    }


def explain(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """What changed between the facts of two environments: `transformers 5.22.0 → 5.23.0`.

    A wheel of the same version that is another is said; one that came with another version is not.
    """
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    shown = set(changed)
    return tuple(
        f"{name} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in changed
        if name.removesuffix(" (wheel)") == name or name.removesuffix(" (wheel)") not in shown
    )


def _short(version: str | None) -> str:
    if version is None:
        return "absent"
    return version if len(version) <= 40 else f"{version[:39]}…"
