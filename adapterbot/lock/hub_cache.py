"""The Hub client's own cache on this machine: what it once downloaded of a model or dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapterbot.errors import InputError
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Identity, file_sha256, stamp
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.hashing import hash_files

Kind = Literal["model", "dataset"]
Choose = Callable[[Iterable[str], Callable[[str], bytes]], list[str]]
"""Picks from the names of a repository, and may read a small file to do so."""


@dataclass(frozen=True)
class Snapshot:
    """One revision in the Hub client's cache: a folder of links into a store of blobs beside it.

    Links are refused everywhere else; these are followed, but to that store only.
    """

    root: Path

    @staticmethod
    def at(path: Path) -> Snapshot | None:
        """The snapshot that `path` is, or None when it is any other folder."""
        within_cache = path.parent.name == "snapshots" and path.is_dir()
        is_repo = path.parent.parent.name.startswith(("models--", "datasets--"))
        return Snapshot(path) if within_cache and is_repo else None

    def files(self) -> list[str]:
        """Every file, sorted."""
        return sorted(
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(self.root)
            for name in names
        )

    def digests(self, choose: Choose, cache: DigestCache | None) -> dict[str, str]:
        """Path → SHA-256 of the files that `choose` picks."""
        return hash_files(self, self.chosen(choose), cache)

    def chosen(self, choose: Choose) -> list[str]:
        """The files that `choose` picks."""
        return choose(self.files(), lambda name: self._resolve(name).read_bytes())

    def _resolve(self, name: str) -> Path:
        target = (self.root / normalise(name)).resolve()
        store = (self.root.parent.parent / "blobs").resolve()
        if not (target.is_relative_to(store) or target.is_relative_to(self.root.resolve())):
            raise InputError(
                "is a link out of the Hub's cache",
                file=str(self.root / name),
                fix="download the model again",
            )
        return target

    def identity(self, path: str) -> Identity | None:
        """As `Tree.identity`."""
        return stamp(self._resolve(path))

    def sha256(self, path: str) -> str:
        """As `Tree.sha256`.

        Raises:
            InputError: the blob behind the link is gone, or lies elsewhere.
        """
        try:
            return file_sha256(self._resolve(path))
        except OSError as error:
            raise InputError(
                "cannot be read", file=str(self.root / path), fix="download the model again"
            ) from error


def cached_snapshot(name: str, kind: Kind, revision: str) -> Snapshot | None:
    """A commit, branch or tag as the client keeps it, if it does."""
    folder = folder_of(name, kind)
    ref = folder / "refs" / normalise(revision)
    commit = ref.read_text().strip() if ref.is_file() else revision
    return Snapshot.at(folder / "snapshots" / normalise(commit))


def folder_of(name: str, kind: Kind) -> Path:
    """Where the client keeps a repository, whether it does so already or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
