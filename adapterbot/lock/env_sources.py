"""The packages of an environment as the project's own lock file pins them: a `uv.lock`, a
`pylock.toml` or a `requirements.txt`, read as text."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from adapterbot.errors import InputError
from adapterbot.lock.environment import (
    NO_SOUP,
    EnvLock,
    MadeFrom,
    Package,
    checked,
    in_order,
    normalised,
)
from adapterbot.lock.package_hashes import bounded, hashes_in, hashes_of, of_files

# A lock file of a project holds for every platform that its markers allow.
_ANY = "any"
_COMMIT = re.compile(r"git\+[^#]*@([0-9a-f]{40}|[0-9a-f]{64})(#.*)?")
# Options of a requirements.txt: those which decide what is taken where no hash does, those that
# change nothing; any other names what is not in the file.
_SOURCES = {
    "-i": "from",
    "--index-url": "from",
    "--extra-index-url": "from",
    "-f": "from",
    "--find-links": "from",
    "--no-index": "no index",
    "--no-binary": "no wheel of",
    "--only-binary": "a wheel of",
    "--prefer-binary": "a wheel rather",
    "--pre": "or a later draft",
}
_INERT = frozenset({"--require-hashes", "--trusted-host", "--use-feature"})
_OPTION = re.compile(r"(--[a-z-]+|-[a-zA-Z])\s*=?\s*(.*)")
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*"
    r"(===?\s*(?P<version>[\w.!+-]+)|@\s*(?P<url>\S+))\s*(;(?P<marker>.*))?"
)


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
    return checked(
        EnvLock(
            soup_version=versions.get("soup-cli", NO_SOUP),
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
        marker = " or ".join(map(str, _list(package.get("resolution-markers"))))
        found += _packages(package, where, name, hashes_of(files, "hash"), commit, marker)
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
        marker = _text(package.get("marker")) or ""
        found += _packages(package, where, name, hashes_of(files, "hashes"), commit, marker)
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


def _packages(
    package: Mapping[str, object],
    where: str,
    file: str,
    hashes: list[str],
    commit: str,
    marker: str,
) -> Iterator[Package]:
    name = _text(package.get("name"))
    if not name:
        raise InputError("has no name", file=file, field=where, fix="lock the project again")
    name = normalised(name)
    # PEP 751 leaves the version out where only a commit or an archive is known.
    version = _text(package.get("version")) or "unversioned"
    yield Package(name, version)
    yield from _on_condition(name, version, marker)
    if commit:
        yield Package(name, f"git:{commit}", "wheel")
    if hashes:
        yield Package(name, of_files(hashes), "wheel")


def _on_condition(name: str, version: str, marker: str) -> Iterator[Package]:
    """When a version is installed: of two, another one may be, and no version has changed."""
    marker = " ".join(marker.replace("'", '"').split())
    if marker:
        yield Package(name, bounded(f"{version} if {marker}"), "wheel")


def _requirements(text: str, name: str) -> tuple[str | None, list[Package]]:
    found: list[list[Package]] = []
    sources: list[str] = []
    pending: list[str] = []
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        pending.append(line.removesuffix("\\"))
        if line.endswith("\\"):
            continue
        # One space for many: the pattern would try each way to share a million of them out.
        whole = " ".join(" ".join(pending).split())
        if whole.startswith("-"):
            sources += _option(whole, name, number)
        elif whole:
            found.append(list(_requirement(whole, name, number)))
        pending = []
    if sources:
        chosen = bounded(", ".join(sorted(set(sources))))
        for packages in found:
            # With hashes it does not matter where a file comes from, and a URL says it.
            by_url = "://" in packages[0].version
            if not by_url and not any(_is_hashes(package) for package in packages):
                packages.append(Package(packages[0].name, chosen, "wheel"))
    return None, [package for packages in found for package in packages]


def _option(line: str, name: str, number: int) -> Iterator[str]:
    match = _OPTION.fullmatch(line)
    option = match[1] if match else ""
    if match and option in _SOURCES:
        # Who may download is nobody else's business, and changes nothing.
        where = re.sub(r"^\w+://([^/@]*@)?", "", match[2])
        yield f"{_SOURCES[option]} {where}".strip()
    elif option not in _INERT:
        raise InputError(
            "names what is not in this file",
            file=name,
            field=f"line {number}",
            fix="compile the requirements into one file, with hashes",
        )


def _is_hashes(package: Package) -> bool:
    return package.source == "wheel" and " if " not in package.version


def _requirement(line: str, name: str, number: int) -> Iterator[Package]:
    match = _REQUIREMENT.fullmatch(re.split(r"\s--", line, maxsplit=1)[0].strip())
    moves = match and (match["url"] or "").startswith("git+") and not _COMMIT.match(match["url"])
    if match is None or moves:
        raise InputError(
            "is not pinned",
            file=name,
            field=f"line {number}",
            fix="write `name==version --hash=sha256:…`, or a commit behind the @ of its URL",
        )
    package = normalised(match["name"])
    version = match["version"] or bounded(match["url"])
    yield Package(package, version)
    yield from _on_condition(package, version, match["marker"] or "")
    if hashes := hashes_in(line):
        yield Package(package, of_files(hashes), "wheel")
