"""Where a branch points: read, and moved only from where it was seen.

REST lets a branch be created only where there is none, and moved forward only where nothing is
lost. Its forced update and its removal take no commit to compare with: what somebody pushes between
our look and our write would be gone. So these two go through GraphQL's `updateRefs`, whose
`beforeOid` GitHub compares in the moment that it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from github import GithubException
from github.GitRef import GitRef
from github.Repository import Repository

from adapterbot.errors import AdapterbotError
from adapterbot.gh.client import Client

T = TypeVar("T")

PERMISSION = "contents: write"
# What GraphQL writes for "no commit": as the new one it removes a branch.
_NONE = "0" * 40
_SWAP = (
    "mutation($repository: ID!, $name: GitRefname!, $old: GitObjectID!, $new: GitObjectID!) { "
    "updateRefs(input: {repositoryId: $repository, refUpdates: "
    "[{name: $name, beforeOid: $old, afterOid: $new, force: true}]}) { clientMutationId } }"
)
_ELSEWHERE = ("fast forward", "fast-forward", "does not exist", "cannot be updated")


class BranchMovedError(Exception):
    """Somebody moved the branch between our look and our write: look again."""


@dataclass(frozen=True)
class Refs:
    """The branches of one repository, as names of commits."""

    client: Client
    repository: str

    @property
    def _repo(self) -> Repository:
        return self.client.api.get_repo(self.repository)  # lazy: no request

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        return self.client.repeat(f"{doing} of {self.repository}", call, permission=PERMISSION)

    def head(self, branch: str) -> str | None:
        """The commit of a branch; None when there is no such branch."""
        ref = self._ref(branch)
        return ref.object.sha if ref else None

    def move(self, branch: str, old: str | None, new: str, *, force: bool = False) -> None:
        """Point a branch at `new`; create it when `old` is None.

        Args:
            force: `new` need not have `old` among its ancestors.

        Raises:
            BranchMovedError: it is not at `old`; nothing was changed.
        """
        ref = self._ref(branch)
        if (ref.object.sha if ref else None) != old:
            raise BranchMovedError
        if ref is None or old is None:
            moved = self._create(branch, new)
        elif force:
            moved = self._swap(f"moving the branch {branch}", branch, old, new)
        else:
            moved = self._forward(ref, new)
        if not moved:
            raise BranchMovedError

    def delete(self, branch: str, old: str) -> None:
        """Remove a branch that is at `old`; one that is elsewhere by now is somebody's.

        Raises:
            InputError, GitHubFailure: GitHub refused or did not answer.
        """
        self._swap(f"deleting the branch {branch}", branch, old, None)

    def _ref(self, branch: str) -> GitRef | None:
        def look() -> GitRef | None:
            try:
                ref = self._repo.get_git_ref(f"heads/{branch}")
                # Asked for on the spot: only GitHub's reply knows the address to write to.
                ref.complete()
            except GithubException as error:
                if error.status == 404:
                    return None
                raise
            return ref

        return self._ask(f"reading the branch {branch}", look)

    def _create(self, branch: str, commit: str) -> bool:
        def write() -> bool:
            try:
                self._repo.create_git_ref(f"refs/heads/{branch}", commit)
            except GithubException as error:
                if error.status == 422 and "exists" in str(error.data):
                    return False
                raise
            return True

        return self.client.create(
            f"creating the branch {branch} of {self.repository}",
            write,
            lambda: True if self.head(branch) == commit else None,
            permission=PERMISSION,
        )

    def _forward(self, ref: GitRef, commit: str) -> bool:
        def write() -> bool:
            try:
                ref.edit(commit)
            except GithubException as error:
                if error.status in {404, 409} or _moved(error):
                    return False
                raise
            return True

        return self._ask(f"moving the branch {ref.ref}", write)

    def _swap(self, doing: str, branch: str, old: str, new: str | None) -> bool:
        node = self._ask("reading the id", lambda: self._repo.node_id)
        given = {
            "repository": node,
            "name": f"refs/heads/{branch}",
            "old": old,
            "new": new or _NONE,
        }
        doing = f"{doing} of {self.repository}"
        try:
            self.client.repeat(
                doing, lambda: self.client.query(_SWAP, given), permission=PERMISSION
            )
        except AdapterbotError:
            # Refused, or done by an attempt whose answer was lost: the branch itself says which.
            now = self.head(branch)
            if now == old:
                raise
            return now == new
        return True


def _moved(error: GithubException) -> bool:
    """Whether a 422 says that the branch is elsewhere, or gone. A protected branch and a
    repository's rules are refused by the same number, and looking again does not help."""
    said = str(error.data).lower()
    return error.status == 422 and any(words in said for words in _ELSEWHERE)
