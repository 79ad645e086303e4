"""Revisions of a repository on the Hub as checkpoints: its commits, or tags by a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, unquote

from adapterbot.bisect import stores
from adapterbot.bisect.checkpoints import MAX_CHECKPOINTS, Checkpoint, natural
from adapterbot.errors import InputError
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME

_REPOSITORY = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(?P<folder>/.+)?")
_OTHER_KINDS = ("datasets/", "spaces/", "buckets/")
_SHORT = 9


def find(url: str) -> list[Checkpoint]:
    """The checkpoints that an `hf://` URL names, oldest first.

    `hf://org/name` is every commit of the main branch that changed the adapter; `hf://org/name@v*`
    every tag that matches, in the order of the numbers in their names; `hf://org/name@revision`
    one of them; with a folder behind, that folder's checkpoints. A revision is a commit from here
    on: what a branch or tag becomes meanwhile changes nothing.

    Raises:
        InputError: there is no such repository, revision or adapter.
        OurFailure: the Hub does not answer, or its client is not installed.
    """
    match = _REPOSITORY.fullmatch(url.rstrip("/"))
    if match is None or match["name"].startswith(_OTHER_KINDS):
        return stores.find(url)
    name, revision, folder = match["name"], match["revision"], match["folder"] or ""
    with _client(url) as api:
        if revision and any(sign in revision for sign in "*?["):
            return _tags(api, name, unquote(revision), folder, url)
        wanted = unquote(revision) if revision else None
        commit = str(api.model_info(name, revision=wanted).sha)
        at_root = not (revision or folder) and api.file_exists(name, CONFIG_NAME, revision=commit)
        if at_root:
            return [_at(name, one, one[:_SHORT]) for one in reversed([*_walk(api, name, commit)])]
    found = stores.find(f"hf://{name}@{commit}{folder}")
    if wanted and not folder and len(found) == 1:
        return [found[0].model_copy(update={"label": wanted[-200:]})]
    return found


@contextmanager
def _client(url: str) -> Iterator[Any]:
    with stores.translated(url):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            yield HfApi()
        except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise FileNotFoundError(url) from error


def _at(name: str, commit: str, label: str, folder: str = "") -> Checkpoint:
    return Checkpoint(path=f"hf://{name}@{quote(commit, safe='')}{folder}", label=label[-200:])


def _tags(api: Any, name: str, pattern: str, folder: str, url: str) -> list[Checkpoint]:
    tags = [tag for tag in api.list_repo_refs(name).tags if fnmatchcase(tag.name, pattern)]
    if not tags:
        raise InputError(
            "matches no tag", file=url, field="checkpoints", fix="name tags that are there"
        )
    tags.sort(key=lambda tag: natural(tag.name))
    return [_at(name, tag.target_commit, tag.name, folder) for tag in tags]


def _walk(api: Any, name: str, head: str) -> Iterator[str]:
    """The commits that changed the adapter, newest first: from each, on to the one before it."""
    commits = [commit.commit_id for commit in api.list_repo_commits(name, revision=head)]
    place = {commit: index for index, commit in enumerate(commits)}
    index = 0
    for _ in range(MAX_CHECKPOINTS + 1):
        if index >= len(commits):
            return
        files = api.get_paths_info(
            name, [CONFIG_NAME, WEIGHTS_NAME], revision=commits[index], expand=True
        )
        if CONFIG_NAME not in {file.path for file in files}:
            return
        changed = [place.get(file.last_commit.oid, index) for file in files if file.last_commit]
        index = max(index, min(changed, default=index))
        yield commits[index]
        index += 1
