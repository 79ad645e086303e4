"""Where the packages of an environment are read from: what is installed beside this Python, or the
project's own lock file (`uv.lock`, `pylock.toml`, `requirements.txt`).

Nothing is imported or run to find out: the metadata that installers leave behind is read as text.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath

from adapterbot.errors import InputError
from adapterbot.lock.environment import EnvLock, MadeFrom, Package, dumps, in_order, loads

# A lock file of a project holds for every platform that its markers allow.
_ANY = "any"
_NO_SOUP = "none"
_SHA256 = re.compile(r"sha256[:=]([0-9a-f]{64})")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*"
    r"(===?\s*(?P<version>[\w.!+-]+)|@\s*(?P<url>\S+))\s*(;.*)?"
)
_TORCH_FIELD = re.compile(r"^(cuda|git_version)\b[^=]*=\s*['\"]([\w.+-]+)['\"]", re.MULTILINE)


def installed(created_at: str) -> EnvLock:
    """Every distribution installed beside this interpreter, with the hash of its wheel or the
    commit of its source where the installer recorded it (PEP 610)."""
    found: dict[str, Iterable[Package]] = {}
    cuda: str | None = None
    for distribution in metadata.distributions():
        name = _normalised(distribution.metadata["Name"] or "")
        if not name or name in found:  # the first on the path is the one that is imported
            continue
        origins = list(_origins(distribution))
        if name == "torch":
            cuda, build = _torch_build(distribution)
            origins += build
        packages = [Package(name, origin, "wheel") for origin in origins]
        found[name] = [*packages, Package(name, distribution.version)]
    entries = in_order(package for packages in found.values() for package in packages)
    versions = {entry.name: entry.version for entry in entries}
    return _checked(
        EnvLock(
            soup_version=versions.get("soup-cli", _NO_SOUP),
            python_version=".".join(str(part) for part in sys.version_info[:3]),
            platform=f"{platform.system().lower()}-{platform.machine().lower()}",
            cuda_version=cuda,
            entries=entries,
            created_at=created_at,
        )
    )


def _origins(distribution: metadata.Distribution) -> Iterator[str]:
    try:
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return
    if not isinstance(direct, dict):
        return
    archive, vcs = direct.get("archive_info"), direct.get("vcs_info")
    if isinstance(archive, dict):
        hashes = archive.get("hashes")
        digest = hashes.get("sha256") if isinstance(hashes, dict) else None
        match = _SHA256.fullmatch(f"sha256:{digest}" if digest else str(archive.get("hash")))
        if match:
            yield f"sha256:{match[1]}"
    if isinstance(vcs, dict) and isinstance(vcs.get("commit_id"), str):
        yield f"{vcs.get('vcs', 'git')}:{vcs['commit_id']}"


def _torch_build(distribution: metadata.Distribution) -> tuple[str | None, list[str]]:
    """The CUDA version that torch was built for, and the commit that it was built from."""
    try:
        text = Path(str(distribution.locate_file("torch/version.py"))).read_text("utf-8")
    except (OSError, ValueError):
        return None, []
    fields = dict(_TORCH_FIELD.findall(text))
    commit = fields.get("git_version")
    return fields.get("cuda"), [f"git:{commit}"] if commit else []


# ---------------------------------------------------------------- the project's own lock file


def from_lock_file(content: bytes, name: str, created_at: str) -> EnvLock:
    """The packages that a project's lock file pins, with the hashes that it holds for each.

    Args:
        name: the file's name, which says what it is, relative to where soup-env.lock will lie.

    Raises:
        InputError: it is none of the three kinds, is broken, or pins nothing.
    """
    base = PurePosixPath(name).name
    reader: Callable[[str, str], tuple[str | None, list[Package]]] = _requirements
    if base == "uv.lock":
        reader = _uv
    elif base == "pylock.toml" or (base.startswith("pylock.") and base.endswith(".toml")):
        reader = _pylock
    elif PurePosixPath(base).suffix != ".txt":
        raise InputError(
            "is not a lock file that we read",
            file=name,
            fix="name a uv.lock, a pylock.toml or a requirements.txt",
        )
    try:
        python, packages = reader(content.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", file=name, fix="save it as UTF-8") from error
    # Beside its own error tomllib lets through those of nesting and of numbers without end.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"is not TOML: {error}", file=name, fix="lock the project again"
        ) from error
    entries = in_order(packages)
    if not entries:
        raise InputError("pins no package", file=name, fix="lock the project again")
    versions = {entry.name: entry.version for entry in entries}
    return _checked(
        EnvLock(
            soup_version=versions.get("soup-cli", _NO_SOUP),
            python_version=python or _ANY,
            platform=_ANY,
            # torch's local version carries its build: 2.13.0+cu130, 2.13.0+cpu.
            cuda_version=versions.get("torch", "").partition("+cu")[2] or None,
            entries=entries,
            created_at=created_at,
            made_from=MadeFrom(name, hashlib.sha256(content).hexdigest()),
        )
    )


def _uv(text: str, name: str) -> tuple[str | None, list[Package]]:
    parsed = tomllib.loads(text)
    found: list[Package] = []
    for index, package in enumerate(_tables(parsed, "package", name)):
        where = f"package[{index}]"
        source = package.get("source")
        source = source if isinstance(source, dict) else {}
        if source.keys() & {"editable", "virtual", "directory"}:
            continue  # the project itself: what is in it is not pinned here
        commit = str(source.get("git", "")).partition("#")[2]
        files = [*_list(package.get("wheels")), package.get("sdist")]
        found += _packages(package, where, name, _hashes(files, "hash"), commit)
    return _text(parsed.get("requires-python")), found


def _pylock(text: str, name: str) -> tuple[str | None, list[Package]]:
    parsed = tomllib.loads(text)
    found: list[Package] = []
    for index, package in enumerate(_tables(parsed, "packages", name)):
        where = f"packages[{index}]"
        if "directory" in package:
            continue
        vcs = package.get("vcs")
        commit = str(vcs.get("commit-id", "")) if isinstance(vcs, dict) else ""
        files = [*_list(package.get("wheels")), package.get("sdist"), package.get("archive")]
        found += _packages(package, where, name, _hashes(files, "hashes"), commit)
    return _text(parsed.get("requires-python")), found


def _tables(parsed: Mapping[str, object], key: str, name: str) -> list[dict[str, object]]:
    tables = parsed.get(key)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError("is missing", file=name, field=f"[[{key}]]", fix="lock the project again")
    return tables


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _hashes(files: Iterable[object], key: str) -> list[str]:
    """The SHA-256 of every file, from `hash = "sha256:…"` or `hashes = {sha256 = "…"}`."""
    found = []
    for file in files:
        given = file.get(key) if isinstance(file, dict) else None
        text = f"sha256:{given.get('sha256')}" if isinstance(given, dict) else str(given)
        if match := _SHA256.fullmatch(text):
            found.append(match[1])
    return found


def _packages(
    package: Mapping[str, object], where: str, file: str, hashes: list[str], commit: str
) -> Iterator[Package]:
    name = _text(package.get("name"))
    if not name:
        raise InputError("has no name", file=file, field=where, fix="lock the project again")
    name = _normalised(name)
    # PEP 751 leaves the version out where only a commit or an archive is known.
    yield Package(name, _text(package.get("version")) or "unversioned")
    if commit:
        yield Package(name, f"git:{commit}", "wheel")
    if hashes:
        yield Package(name, _of_files(hashes), "wheel")


def _of_files(hashes: list[str]) -> str:
    """One text for the files that a package may be installed from, whatever their order."""
    if len(hashes) == 1:
        return f"sha256:{hashes[0]}"
    together = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    return f"{len(hashes)} files, sha256:{together}"


def _requirements(text: str, name: str) -> tuple[str | None, list[Package]]:
    found: list[Package] = []
    number = 0
    pending: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        pending.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            found += _requirement(" ".join(pending), name, number)
            pending = []
    found += _requirement(" ".join(pending), name, number)
    return None, found


def _requirement(line: str, name: str, number: int) -> Iterator[Package]:
    # One space for many: the pattern would try each way to share a million of them out.
    line = " ".join(line.split())
    if not line:
        return
    field = f"line {number}"
    if line.startswith("-"):
        if re.match(r"(-r|--requirement|-e|--editable|-c|--constraint)\b", line):
            raise InputError(
                "names what is not in this file",
                file=name,
                field=field,
                fix="compile the requirements into one file, with hashes",
            )
        return  # where to download from changes no content
    match = _REQUIREMENT.fullmatch(re.split(r"\s--", line, maxsplit=1)[0].strip())
    if match is None:
        raise InputError(
            "is not pinned", file=name, field=field, fix="write `name==version --hash=sha256:…`"
        )
    package = _normalised(match["name"])
    yield Package(package, match["version"] or _url_version(match["url"]))
    if hashes := _SHA256.findall(line):
        yield Package(package, _of_files(hashes), "wheel")


def _url_version(url: str) -> str:
    return url if len(url) <= 128 else f"url sha256:{hashlib.sha256(url.encode()).hexdigest()}"


def _normalised(name: str) -> str:
    """As the package index does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _checked(lock: EnvLock) -> EnvLock:
    """The lock as it will be read again: within Soup's bounds.

    Raises:
        InputError: naming the package that is not.
    """
    return loads(dumps(lock).encode(), "the environment")
