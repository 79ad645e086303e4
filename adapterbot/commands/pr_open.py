"""`adapterbot pr open`: propose an adapter, or bring the pull request that does so up to date.

`run` is what a merge or a retraining workflow calls when it has a new adapter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from adapterbot.commands.origin import repository_at
from adapterbot.commands.pr import LOGIN, REPOSITORY, EvidenceOptions
from adapterbot.config import key_of
from adapterbot.context import server_url
from adapterbot.errors import InputError
from adapterbot.files.tree import WorkTree
from adapterbot.gh.access import client_for
from adapterbot.gh.branches import Change
from adapterbot.gh.proposal import Proposal, Proposed
from adapterbot.gh.pulls import propose
from adapterbot.gh.purpose import Purpose
from adapterbot.gh.remote import Remote
from adapterbot.git.checkout import repository_root
from adapterbot.lock.sidecar import folder
from adapterbot.marker import document_key
from adapterbot.pages.inert import plain
from adapterbot.pr import render
from adapterbot.pr.document import (
    adapter_weights,
    branch_of,
    checked_branch,
    checked_title,
    described,
    inside,
    is_adapter_file,
)
from adapterbot.records import AdapterPullRequest, AdapterWeights

_REVIEWER = re.compile(f"{LOGIN}|{REPOSITORY}")
_MOST_FILES = 2000


@dataclass(frozen=True)
class OpenOptions:
    """What is proposed.

    Attributes:
        adapter: the adapter's directory on disk.
        base: the branch it goes into; the repository's default branch.
        path: where it goes in the repository; where it lies in this checkout.
        include: files and folders of this checkout that belong to it: its lock, which brings the
            folder that explains it, its config, data.
        repository: "owner/name"; GITHUB_REPOSITORY, or what `origin` points at.
        branch: to propose it from; one per adapter.
    """

    title: str
    adapter: Path
    base: str | None = None
    path: str | None = None
    include: tuple[str, ...] = ()
    evidence: EvidenceOptions = field(default_factory=EvidenceOptions)
    repository: str | None = None
    branch: str | None = None
    labels: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    draft: bool = False


@dataclass(frozen=True)
class Opened:
    """What was proposed, and what became of it."""

    pull: AdapterPullRequest
    outcome: Proposed


def run(options: OpenOptions, environment: Mapping[str, str] = os.environ) -> Opened:
    """Open the pull request of an adapter, or update the one there is.

    Everything on disk is read and checked before GitHub is asked to change anything.

    Raises:
        AdapterbotError: an input, the token, its permissions, or GitHub.
    """
    title = checked_title(options.title)
    root = repository_root(Path.cwd())
    path = inside(options.adapter, root, options.path)
    weights, notes = adapter_weights(options.adapter, path)
    branch = checked_branch(options.branch or branch_of(path))
    repository = _repository(options, root, environment)
    reviewers = tuple(_reviewer(name) for name in options.reviewers)
    evidence = options.evidence.read(path, weights.digest)
    change = Change(_files(options, root, path, weights), path, is_adapter_file)
    client = client_for(repository, environment, Purpose.PROPOSE)
    base = options.base or client.repeat(
        f"reading {repository}", lambda: client.api.get_repo(repository, lazy=False).default_branch
    )
    key = document_key(key_of(path))
    written: list[AdapterPullRequest] = []

    def body(base_sha: str, others: int) -> str:
        written[:] = [described(title, base_sha, weights, notes, evidence)]
        try:
            return render.body(written[0], key, titled=False, limit=render.BODY_LIMIT - others)
        except ValueError as error:
            raise InputError(
                "has no room left for ours",
                file="the pull request's description",
                fix="shorten what was written around it",
            ) from error

    outcome = propose(
        client,
        repository,
        Remote(f"{server_url(environment)}/{repository}.git", client.token),
        Proposal(
            base=checked_branch(base, field="--base"),
            branch=branch,
            key=key,
            title=title,
            subject=plain(title),
            change=change,
            body=body,
            merged=render.merged_body,
            labels=options.labels,
            reviewers=reviewers,
            draft=options.draft,
        ),
    )
    pull = written[0] if written else described(title, outcome.base_sha, weights, notes, evidence)
    return Opened(pull, outcome)


def _files(options: OpenOptions, root: Path, path: str, weights: AdapterWeights) -> dict[str, Path]:
    """Repository path → file on disk, for the adapter and what goes with it."""
    found = {f"{path}/{file.name}": options.adapter / file.name for file in weights.files}
    tree = WorkTree(root)
    for given in options.include:
        below = [name for name in tree.files(given) if PurePosixPath(name).parts[0] != ".git"]
        if not below or not tree.has(given):
            raise InputError(
                "does not exist in this checkout",
                file=given,
                field="--include",
                fix="name files or folders from the repository root",
            )
        beside = folder(given.rstrip("/"))  # a lock without what explains it reads as a drift
        below += tree.files(beside) if (root / beside).is_dir() else ()
        found = {name: root / name for name in below} | found
    if len(found) > _MOST_FILES:
        raise InputError(
            f"would commit {len(found):,} files, more than {_MOST_FILES:,}",
            field="--include",
            fix="name fewer",
        )
    return found


def _reviewer(name: str) -> str:
    if not _REVIEWER.fullmatch(name.removeprefix("@")):
        raise InputError(
            f"{name[:80]!r} is neither a login nor a team",
            field="--reviewer",
            fix="write alice, or org/team",
        )
    return name.removeprefix("@")


def _repository(options: OpenOptions, root: Path, environment: Mapping[str, str]) -> str:
    given = options.repository or environment.get("GITHUB_REPOSITORY")
    given = given or repository_at(root, server_url(environment))
    if not re.fullmatch(REPOSITORY, given):
        raise InputError(
            f"{given[:80]!r} is not a repository"
            if given
            else "there is no repository to open it in",
            field="--repo",
            fix="write owner/name",
        )
    return given
