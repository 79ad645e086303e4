"""Which commit a pull request is at, and which pull request a finished run was about.

Both are GitHub's word. Nothing that a run wrote is believed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from github.PullRequest import PullRequest

from adapterbot.context import Origin
from adapterbot.errors import InputError
from adapterbot.gh.client import Client

_PERMISSION = "pull-requests: read"
_WORKFLOWS = (".github/workflows/", ".github/actions/")
_MOST_FILES = 3000


@dataclass(frozen=True)
class Head:
    """A pull request and the two commits that it is between. `repository` is the head's own; None
    when the fork was deleted."""

    number: int
    sha: str
    base_sha: str
    repository: str | None
    open: bool


def head_of(client: Client, repository: str, number: int) -> Head:
    """Where a pull request is now.

    Raises:
        InputError: there is none, or the token may not see it.
        GitHubFailure: GitHub refused or did not answer.
    """
    repo = client.api.get_repo(repository)
    return client.repeat(
        f"reading {repository}#{number}",
        # Lazily known by its number; reading a field asks for it.
        lambda: _head(repo.get_pull(number)),
        permission=_PERMISSION,
    )


def heads_of(client: Client, repository: str, origin: Origin, sha: str) -> list[Head]:
    """The open pull requests whose head is this very commit of this very repository.

    A run of a fork's pull request names none, so they are looked up by branch and compared by
    commit: one that has moved on since is no longer what the run was about.

    Raises:
        InputError, GitHubFailure: as `head_of`.
    """
    if not origin.repository or not origin.branch:
        return []
    owner = origin.repository.partition("/")[0]
    repo = client.api.get_repo(repository)
    found = client.repeat(
        f"looking for the pull request of {owner}:{origin.branch} in {repository}",
        lambda: [_head(p) for p in repo.get_pulls(state="open", head=f"{owner}:{origin.branch}")],
        permission=_PERMISSION,
    )
    # GitHub ignores a filter that it cannot read, so each is compared here.
    return [head for head in found if (head.sha, head.repository) == (sha, origin.repository)]


def workflow_in(client: Client, repository: str, number: int) -> str | None:
    """A file of a workflow, or of a local action, that a pull request adds or changes; None if it
    leaves them alone. GitHub runs a pull request's workflows as the pull request has them.

    Raises:
        InputError, GitHubFailure: as `head_of`; or it changes more files than GitHub lists.
    """
    repo = client.api.get_repo(repository)
    files = client.repeat(
        f"listing the files of {repository}#{number}",
        lambda: [(f.filename, f.status) for f in repo.get_pull(number).get_files()],
        permission=_PERMISSION,
    )
    if len(files) >= _MOST_FILES:
        raise InputError(
            f"changes {_MOST_FILES:,} files or more, and GitHub lists no others: some may be of "
            "the workflow whose report this is",
            file="the pull request",
            fix="split it",
        )
    kept = (name for name, status in files if status != "removed")
    return next((name for name in kept if name.startswith(_WORKFLOWS)), None)


def _head(pull: PullRequest) -> Head:
    # PyGithub's types do not say so, but the head of a deleted fork has no repository.
    source = pull.head.raw_data.get("repo")
    return Head(
        number=pull.number,
        sha=pull.head.sha,
        base_sha=pull.base.sha,
        repository=source.get("full_name") if isinstance(source, dict) else None,
        open=pull.state == "open",
    )
