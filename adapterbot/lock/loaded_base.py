"""A base model that is to be loaded: a directory of this machine, to which one of the Hub is
downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from glob import escape
from pathlib import Path, PurePosixPath
from shutil import disk_usage
from typing import TYPE_CHECKING

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.paths import normalise
from adapterbot.lock.base_guard import inspect_base
from adapterbot.lock.base_model import MODEL_CONFIG, model_file_names
from adapterbot.lock.hub import (
    WEIGHT_SUFFIXES,
    HubRepo,
    downloading,
    fetch_file,
    look_up,
    only_a_part,
)
from adapterbot.lock.hub_cache import Choose, Snapshot, cached_snapshot, folder_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

_NEVER_LOADED = WEIGHT_SUFFIXES - {".safetensors"} | {".py"}
# Chat templates beside the tokenizer's own, such as the one for tools.
_NAMED_TEMPLATES = "additional_chat_templates/"


def base_on_disk(base: Path | str) -> Path:
    """The directory of a base model that transformers may be shown; one of the Hub is downloaded,
    unless it is in the client's cache.

    Where the Hub is silent it is this machine's copy. Known at once: transformers itself would ask
    for half a minute.

    Raises:
        InputError: there is none of this name, here or on the Hub, or none with safetensors. Or the
            Hub does not let us read it; or as `inspect_base`.
        OurFailure: the Hub did not answer, and this machine has no copy, or only a part of one. Or
            its disk is full, or the Hub's client is missing.
    """
    return _on_disk(base, partial(_with_weights, str(base)), "base")


def config_on_disk(base: Path | str, *, field: str) -> Path:
    """As `base_on_disk`, but of one of the Hub only its config is there for certain."""

    def choose(names: Iterable[str], _: object) -> list[str]:
        if MODEL_CONFIG in names:
            return [MODEL_CONFIG]
        raise InputError(
            f"holds no {MODEL_CONFIG}", file=str(base), fix="name a transformers model"
        )

    return _on_disk(base, choose, field)


def base_at_hand(base: Path | str) -> Path | None:
    """As `base_on_disk`, without downloading anything; None where it would be.

    Raises:
        InputError: there is none of this name, here or on the Hub.
        OurFailure: the Hub did not answer, and this machine has no copy, or no client for it.
    """
    if there.exists(Path(base)):
        return Path(base)
    repo, found = _look_up(str(base), "base")
    if not isinstance(found, Snapshot):
        copy = cached_snapshot(repo.name, repo.kind, found.sha or "main")
        return copy.root if copy else None
    return found.root


def loaded_file_names(names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    """Those of a model's files that we let transformers load: no code and no pickle.

    Raises:
        InputError: as `model_file_names`.
    """
    present = sorted(names)
    found = (
        name
        for name in model_file_names(present, read)
        if PurePosixPath(name).suffix not in _NEVER_LOADED
    )
    return [*found, *(name for name in present if name.startswith(_NAMED_TEMPLATES))]


def _with_weights(base: str, names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    found = loaded_file_names(names, read)
    if not any(name.endswith(".safetensors") for name in found):
        raise InputError(
            "holds no safetensors weights", file=base, fix="name a model that has them"
        )
    return found


def _on_disk(base: Path | str, choose: Choose, field: str) -> Path:
    """A base's directory; of one on the Hub, the files that `choose` picks."""
    found = _directory(base, choose, field)
    inspect_base(found, str(base))
    return found


def _directory(base: Path | str, choose: Choose, field: str) -> Path:
    if there.exists(Path(base)):
        return Path(base)
    repo, found = _look_up(str(base), field)
    if isinstance(found, Snapshot):
        try:
            found.chosen(choose)
        except InputError as error:
            raise only_a_part(repo) from error
        return found.root
    commit = found.sha or "main"
    files = {normalise(file.rfilename): file for file in found.siblings or ()}
    chosen = choose(files, lambda name: fetch_file(repo, commit, name).read_bytes())
    # By the name that was asked for, which finds the copy when the Hub is silent one day.
    copy = cached_snapshot(repo.name, repo.kind, repo.revision or "main")
    if copy and copy.root.name == commit and all(there.exists(copy.root / name) for name in chosen):
        return copy.root
    _check_room(repo, [files[name] for name in chosen])
    from huggingface_hub import snapshot_download

    with downloading(repo):
        patterns = [escape(name) for name in chosen]
        return Path(snapshot_download(repo.name, revision=repo.revision, allow_patterns=patterns))


def _look_up(base: str, field: str) -> tuple[HubRepo, ModelInfo | DatasetInfo | Snapshot]:
    repo = HubRepo(base, "model", base, field)
    try:
        return repo, look_up(repo)
    except InputError as error:
        raise repo.bad(
            "is neither a directory nor a model that the Hub shows us",
            "correct the name, or set HF_TOKEN for a private one",
        ) from error


def _check_room(repo: HubRepo, files: Iterable[RepoSibling]) -> None:
    """Before hours of download: a pull request may name a model that is larger than the disk.

    Raises:
        OurFailure: it is.
    """
    blobs = folder_of(repo.name, repo.kind) / "blobs"
    kept = ((file, blobs / (file.lfs.sha256 if file.lfs else file.blob_id or "")) for file in files)
    needed = sum(file.size or 0 for file, blob in kept if not there.is_file(blob))
    disk = next(folder for folder in blobs.parents if there.exists(folder))
    free = disk_usage(disk).free
    if needed > free:
        raise repo.failed(
            f"{repo.text!r} takes {needed / 1e9:,.1f} GB more, and {disk} has {free / 1e9:,.1f} GB",
            "make room, or set HF_HOME to a folder on another disk",
        )
