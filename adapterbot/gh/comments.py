"""One comment per adapter on a pull request, however many jobs race and however GitHub fails.

A comment is ours when its first line is our marker *and* the token's own account wrote it: anyone
may paste the marker. All pages are read. After creating, we look again: the lowest id stays,
takes the newest content, and the others are deleted, so racing jobs converge on one comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from github import GithubException
from github.Issue import Issue
from github.IssueComment import IssueComment
from github.NamedUser import NamedUser
from github.Organization import Organization

from adapterbot.errors import GitHubFailure, OurFailure
from adapterbot.gh.client import Client, UncertainWrite
from adapterbot.marker import key_of

_PERMISSION = "pull-requests: write"
_ROUNDS = 5
_GONE = (404, 410)


class CommentAction(StrEnum):
    """What became of the comment."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class CommentOutcome:
    """Where the comment is and what was done to it."""

    url: str
    action: CommentAction


def upsert_comment(
    client: Client, repository: str, number: int, key: str, body: str
) -> CommentOutcome:
    """Make the one comment for `key` on pull request `repository`#`number` say `body`.

    Args:
        repository: "owner/name".
        body: Markdown whose first line is `marker(key)`.

    Raises:
        InputError: the token, its permissions, the repository or the number is wrong.
        GitHubFailure: GitHub refused or did not answer.
    """
    if key_of(body) != key:
        raise OurFailure(f"the comment for {key!r} does not begin with its marker")
    thread = _Thread(client, repository, number, key)
    written: set[int] = set()
    doubt: UncertainWrite | None = None
    for attempt in range(1, _ROUNDS + 1):
        ours = thread.ours()
        if not ours:
            try:
                created = thread.create(body)
            except UncertainWrite as error:
                # It may have been written: look before writing again.
                doubt = error
                client.patience.sleep(client.patience.backoff(attempt))
                continue
            written.add(created.id)
            # A list may lag behind the write that precedes it, so ours is added to what it says.
            ours = {created.id: created} | thread.ours()
        keeper = ours.pop(min(ours))
        fresh = keeper.id in written or doubt is not None
        action = CommentAction.CREATED if fresh else CommentAction.UNCHANGED
        if not _same(keeper.body, body):
            # Content before tidying: whatever fails next, one comment tells the truth.
            if not thread.edit(keeper, body):
                continue  # deleted under our hands: start over
            action = CommentAction.UPDATED
        for spare in ours.values():
            thread.delete(spare)
        return CommentOutcome(keeper.html_url, action)
    raise doubt or GitHubFailure(
        f"the comment on {thread.name} was deleted {_ROUNDS} times while we wrote it",
        fix="look for another workflow that deletes comments",
    )


def our_keys(client: Client, repository: str, number: int) -> frozenset[str]:
    """The keys of every comment of ours on a pull request.

    Raises:
        InputError, GitHubFailure: as `upsert_comment`.
    """
    keys = (key_of(comment.body or "") for comment in _written_by_us(client, repository, number))
    return frozenset(key for key in keys if key is not None)


def settle_comments(
    client: Client, repository: str, number: int, bodies: Mapping[str, str]
) -> dict[str, str]:
    """`upsert_comment` for every key in `bodies`, in their order; key → URL of its comment.

    Comments of keys that are not in `bodies` are left as they are.

    Raises:
        InputError, GitHubFailure: as `upsert_comment`, at the first key that fails.
    """
    return {
        key: upsert_comment(client, repository, number, key, body).url
        for key, body in bodies.items()
    }


@dataclass(frozen=True)
class _Thread:
    """The comments of one pull request that belong to one key."""

    client: Client
    repository: str
    number: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.repository}#{self.number}"

    def ours(self) -> dict[int, IssueComment]:
        """Ours by id."""
        return {
            comment.id: comment
            for comment in _written_by_us(self.client, self.repository, self.number)
            if key_of(comment.body or "") == self.key
        }

    def create(self, body: str) -> IssueComment:
        return self.client.write_once(
            f"posting a comment on {self.name}",
            lambda: self._issue().create_comment(body),
            permission=_PERMISSION,
        )

    def edit(self, comment: IssueComment, body: str) -> bool:
        """False when the comment is gone."""

        def patch() -> bool:
            try:
                comment.edit(body)
            except GithubException as error:
                if error.status in _GONE:
                    return False
                raise
            return True

        return self.client.repeat(
            f"updating our comment on {self.name}", patch, permission=_PERMISSION
        )

    def delete(self, comment: IssueComment) -> None:
        """Gone is gone, whoever did it: a repeated DELETE and a racing job both meet a 404."""

        def remove() -> None:
            try:
                comment.delete()
            except GithubException as error:
                if error.status not in _GONE:
                    raise

        self.client.repeat(
            f"deleting our second comment on {self.name}", remove, permission=_PERMISSION
        )

    def _issue(self) -> Issue:
        return _issue(self.client, self.repository, self.number)


def _issue(client: Client, repository: str, number: int) -> Issue:
    # A pull request is an issue to the comments API. Lazy: no request is sent for either.
    return client.api.get_repo(repository).get_issue(number)


def _written_by_us(client: Client, repository: str, number: int) -> list[IssueComment]:
    """The token's own comments, from all pages; the list starts over when a page fails."""
    login = client.login
    found = client.repeat(
        f"listing the comments of {repository}#{number}",
        lambda: list(_issue(client, repository, number).get_comments()),
        permission=_PERMISSION,
    )
    return [comment for comment in found if _wrote(login, comment)]


def _wrote(login: str, comment: IssueComment) -> bool:
    """Whether the token's account wrote this comment.

    The second form is for an App's token without the usual prefix: no person's login can end in
    "[bot]", so it lets nobody in.
    """
    # PyGithub's types do not say so, but the comment of a deleted account has no user.
    author: NamedUser | Organization | None = comment.user
    return author is not None and author.login in {login, f"{login}[bot]"}


def _same(left: str | None, right: str) -> bool:
    """Equal but for line endings and the blank end, which GitHub may rewrite."""

    def plain(text: str) -> str:
        return re.sub(r"\r\n?", "\n", text).rstrip()

    return plain(left or "") == plain(right)
