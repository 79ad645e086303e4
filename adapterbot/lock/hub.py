"""Digests of a model or dataset on the Hub, from its file metadata: nothing large is downloaded.

Files in LFS come with their SHA-256; the few small ones beside them (config, tokenizer) are fetched
once and hashed, so that the result equals the digest of the same files on disk. Without a network
it is the Hub client's own cache on this machine that is hashed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.paths import normalise
from adapterbot.files.tree import file_sha256
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.hub_cache import Choose, Kind, Snapshot, cached_snapshot
from adapterbot.lock.schema import sha256_text

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
MAX_FETCHED = 1_000
_SECONDS = 20  # of silence; the client itself waits for ever
_OUR_DISK = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class HubRepo:
    """`org/name` or `org/name@revision`, with the place in soup.yaml that names it."""

    text: str
    kind: Kind
    file: str
    field: str

    @property
    def name(self) -> str:
        """The id without the revision."""
        return self.text.partition("@")[0]

    @property
    def revision(self) -> str | None:
        """A commit, branch or tag; None is the main branch."""
        return self.text.partition("@")[2] or None

    def bad(self, message: str, fix: str) -> InputError:
        """An error that the author of soup.yaml can mend."""
        return InputError(message, file=self.file, field=self.field, fix=fix)

    def failed(self, message: str, fix: str) -> OurFailure:
        """An error that is not the author's."""
        return OurFailure(message, file=self.file, field=self.field, fix=fix)


def hub_files(repo: HubRepo, choose: Choose, cache: DigestCache | None = None) -> dict[str, str]:
    """Path → SHA-256 of the files of a repository that `choose` picks from their names.

    Raises:
        InputError, OurFailure: as `look_up`.
    """
    found = look_up(repo)
    if isinstance(found, Snapshot):
        digests = found.digests(choose, cache)
        # To ask for a lock is to fetch the small files, and they alone are no model.
        if repo.kind == "model" and WEIGHT_SUFFIXES.isdisjoint(
            PurePosixPath(name).suffix for name in digests
        ):
            raise only_a_part(repo)
        return digests
    siblings = {normalise(file.rfilename): file for file in found.siblings or ()}
    fetch = partial(fetch_file, repo, found.sha or "")
    chosen = choose(siblings, lambda name: fetch(name).read_bytes())
    return _digests(repo, siblings, chosen, fetch, cache)


def refuse_part(repo: HubRepo) -> None:
    """For files that are missing from a repository and nothing else: where the Hub is silent, this
    machine may only have what it once loaded.

    Raises:
        OurFailure: the Hub is silent.
    """
    if isinstance(look_up(repo), Snapshot):
        raise only_a_part(repo)


def only_a_part(repo: HubRepo) -> OurFailure:
    """That this machine's copy lacks files, and nobody can be asked for them."""
    return repo.failed(
        f"only a part of {repo.text!r} is on this machine, and the Hub did not answer",
        f"check the network and HF_ENDPOINT, or run `hf download {repo.name}` where there is one",
    )


def look_up(repo: HubRepo) -> ModelInfo | DatasetInfo | Snapshot:
    """What the Hub says of a repository, at once; this machine's copy where the Hub is silent.

    Raises:
        InputError: the Hub has no such repository or revision, or we may not see it.
        OurFailure: the Hub did not answer and this machine has no copy, or its client is missing.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise repo.failed(
            f"{repo.text!r} is a {repo.kind} of the Hub, whose client is not installed",
            "pip install 'adapterbot[eval]'",
        ) from error
    try:
        api = HfApi()
        ask = api.model_info if repo.kind == "model" else api.dataset_info
        return ask(repo.name, revision=repo.revision, files_metadata=True, timeout=_SECONDS)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise repo.bad(
            f"{repo.text!r} is neither in the repository nor a {repo.kind} that the Hub shows us",
            "correct the name, or set HF_TOKEN for a private one",
        ) from error
    except _unanswered() as error:
        copy = cached_snapshot(repo.name, repo.kind, repo.revision or "main")
        if copy is None:
            raise _silent(repo, error) from error
        return copy


def _unanswered() -> tuple[type[Exception], ...]:
    """What the client's HTTP library raises when nobody answers; which one depends on its age."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0], OSError


def _silent(repo: HubRepo, error: Exception) -> OurFailure:
    return repo.failed(
        f"{repo.text!r} is not on this machine, and the Hub did not answer: {type(error).__name__}",
        "correct the path; for a model or a data set of the Hub, check the network and HF_ENDPOINT",
    )


def fetch_file(repo: HubRepo, commit: str, name: str) -> Path:
    """One small file, through the client's own cache.

    Raises:
        InputError, OurFailure: as `downloading`.
    """
    from huggingface_hub import hf_hub_download

    with downloading(repo):
        return Path(hf_hub_download(repo.name, name, revision=commit, repo_type=repo.kind))


@contextmanager
def downloading(repo: HubRepo) -> Iterator[None]:
    """Around what the client downloads.

    Raises:
        InputError: the Hub does not let us read the files.
        OurFailure: it did not answer, or they cannot be kept on this machine.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError as error:  # as which it also answers for a gated one
        raise repo.bad(
            f"{repo.text!r} is shown to us by the Hub, but not its files",
            "accept its terms there, with the account that HF_TOKEN belongs to",
        ) from error
    except _unanswered() as error:
        if isinstance(error, OSError) and error.errno in _OUR_DISK:
            raise repo.failed(
                f"{repo.text!r} cannot be kept on this machine: {error.strerror}",
                "make room, or set HF_HOME to another folder",
            ) from error
        raise _silent(repo, error) from error


def _digests(
    repo: HubRepo,
    siblings: dict[str, RepoSibling],
    chosen: list[str],
    fetch: Callable[[str], Path],
    cache: DigestCache | None,
) -> dict[str, str]:
    small = [name for name in chosen if siblings[name].lfs is None]
    if len(small) > MAX_FETCHED:
        raise repo.bad(
            f"has {len(small):,} files outside LFS, more than the {MAX_FETCHED:,} we fetch",
            "name fewer files, or keep them in LFS",
        )
    found: dict[str, str] = {}
    for name in chosen:
        file = siblings[name]
        if file.lfs is not None:
            found[name] = sha256_text(
                file.lfs.sha256, file=f"{repo.text}/{name}", field="lfs", fix="report it to the Hub"
            )
            continue
        # Git's own id of the content, so one that we hashed before is the same file.
        identity = (f"git blob {file.blob_id}", "") if file.blob_id else None
        digest = cache.get(identity) if cache and identity else None
        if digest is None:
            digest = file_sha256(fetch(name))
            if cache and identity:
                cache.put(identity, digest)
        found[name] = digest
    return found
