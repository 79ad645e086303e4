"""The packages of an environment as they are installed beside this Python.

Nothing is imported or run to find out: the metadata that installers leave behind is read as text.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

from adapterbot.lock.environment import NO_SOUP, EnvLock, Package, checked, in_order, normalised
from adapterbot.lock.package_hashes import hashes_of, of_files

_TORCH_FIELD = re.compile(r"^(cuda|git_version)\b[^=]*=\s*['\"]([\w.+-]+)['\"]", re.MULTILINE)


def installed(created_at: str) -> EnvLock:
    """Every distribution installed beside this interpreter, with the hash of its wheel or the
    commit of its source where the installer recorded it (PEP 610)."""
    found: dict[str, list[Package]] = {}
    places: dict[str, str] = {}
    cuda: str | None = None
    for distribution in metadata.distributions():
        name = normalised(distribution.metadata["Name"] or "")
        place = str(distribution.locate_file(""))
        # The first on the path is the one that is imported. Of two in one folder nobody knows, nor
        # in which order they are listed.
        if not name or places.setdefault(name, place) != place or _is_left_over(distribution):
            continue
        origins = list(_origins(distribution))
        if name == "torch":
            cuda, build = _torch_build(distribution)
            origins += build
        packages = [Package(name, origin, "wheel") for origin in origins]
        found.setdefault(name, []).extend([*packages, Package(name, distribution.version)])
    entries = in_order(package for packages in found.values() for package in packages)
    versions = {entry.name: entry.version for entry in entries}
    return checked(
        EnvLock(
            soup_version=versions.get("soup-cli", NO_SOUP),
            python_version=".".join(str(part) for part in sys.version_info[:3]),
            platform=f"{platform.system().lower()}-{platform.machine().lower()}",
            cuda_version=cuda,
            entries=entries,
            created_at=created_at,
        )
    )


def _is_left_over(distribution: metadata.Distribution) -> bool:
    """Whether pip renamed it to `~name`, could not remove it, and passes it over."""
    return PurePosixPath(getattr(distribution, "_path", "")).name.startswith("~")


def _origins(distribution: metadata.Distribution) -> Iterator[str]:
    """What a distribution was installed from, unless that was a package index."""
    text = distribution.read_text("direct_url.json")
    try:
        direct = json.loads(text or "{}")
    except ValueError:
        return
    if not isinstance(direct, dict) or not direct:
        return
    archive, vcs, folder = (direct.get(f"{kind}_info") for kind in ("archive", "vcs", "dir"))
    if isinstance(vcs, dict) and isinstance(vcs.get("commit_id"), str):
        yield f"{vcs.get('vcs', 'git')}:{vcs['commit_id']}"
    elif isinstance(archive, dict) and (hashes := hashes_of([archive], "hashes", "hash")):
        yield of_files(hashes)
    elif isinstance(folder, dict) and folder.get("editable"):
        yield "editable"  # it changes under the environment, and nothing here can pin it
    else:
        yield _content(distribution)


def _content(distribution: metadata.Distribution) -> str:
    """What was unpacked: a folder or file of this machine has a version, and no hash."""
    record = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    # Scripts beside the packages name the interpreter; the metadata says where it came from.
    files = [
        f"{row[0]} {row[1]}"
        for row in record
        if len(row) > 1 and row[1] and not re.match(r"\.\.|/|[^/]*\.dist-info/", row[0])
    ]
    return of_files([hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()])


def _torch_build(distribution: metadata.Distribution) -> tuple[str | None, list[str]]:
    """The CUDA version that torch was built for, and the commit that it was built from."""
    try:
        text = Path(str(distribution.locate_file("torch/version.py"))).read_text("utf-8")
    except (OSError, ValueError):
        return None, []
    fields = dict(_TORCH_FIELD.findall(text))
    commit = fields.get("git_version")
    return fields.get("cuda"), [f"git:{commit}"] if commit else []
