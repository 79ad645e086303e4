"""Answering a comment: may its author ask, a reaction, and a reply where one is needed."""

from __future__ import annotations

from dataclasses import dataclass

from github import GithubException
from github.Issue import Issue
from github.IssueComment import IssueComment

from adapterbot.gh.client import Client
from adapterbot.gh.comments import wrote

_PERMISSION = "pull-requests: write"
# REST calls "maintain" by the coarser "write" as well; both may push.
_WRITERS = frozenset({"admin", "maintain", "write"})


@dataclass(frozen=True)
class Conversation:
    """A comment on a pull request that asked us something."""

    client: Client
    repository: str
    number: int
    comment: int

    def may_write(self, login: str) -> bool:
        """Whether this account may push to the repository, by GitHub's word and not the event's.

        Raises:
            InputError, GitHubFailure: GitHub does not say.
        """
        repo = self.client.api.get_repo(self.repository)

        def ask() -> str:
            try:
                return repo.get_collaborator_permission(login)
            except GithubException as error:
                if error.status == 404:
                    return "none"  # an App, or an account that has gone since
                raise

        level = self.client.repeat(
            f"asking what {login} may do in {self.repository}", ask, permission="contents: read"
        )
        return level in _WRITERS

    def react(self, content: str) -> None:
        """A reaction on the comment; the same one twice is one.

        Raises:
            InputError, GitHubFailure: GitHub refused or did not answer.
        """
        path = f"/repos/{self.repository}/issues/comments/{self.comment}/reactions"
        self.client.repeat(
            f"reacting to a comment on {self.repository}#{self.number}",
            lambda: self.client.api.requester.requestJsonAndCheck(
                "POST", path, input={"content": content}
            ),
            permission=_PERMISSION,
        )

    def reply(self, body: str) -> None:
        """A comment of our own, once: after an unclear answer we look before sending it again.

        Raises:
            InputError, GitHubFailure: GitHub refused or did not answer.
        """
        issue = self.client.api.get_repo(self.repository).get_issue(self.number)
        opening = f"<!-- adapterbot-reply:{self.comment} -->"
        self.client.create(
            f"replying on {self.repository}#{self.number}",
            lambda: issue.create_comment(f"{opening}\n{body}"),
            lambda: self._replied(issue, opening),
            permission=_PERMISSION,
        )

    def _replied(self, issue: Issue, opening: str) -> IssueComment | None:
        found = self.client.repeat(
            f"listing the comments of {self.repository}#{self.number}",
            lambda: list(issue.get_comments()),
            permission=_PERMISSION,
        )
        ours = (comment for comment in found if wrote(self.client.login, comment))
        return next((one for one in ours if (one.body or "").startswith(opening)), None)
