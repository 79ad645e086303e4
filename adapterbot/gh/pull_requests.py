"""The pull request of a proposal: found, opened, written, labelled, and shown to its reviewers.

It is found again by its head branch and the marker in its body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from github import GithubException
from github.PullRequest import PullRequest

from adapterbot.errors import GitHubFailure, InputError
from adapterbot.gh.client import Client
from adapterbot.gh.proposal import Action, Proposal
from adapterbot.marker import marker

T = TypeVar("T")

_PERMISSION = "pull-requests: write"
_TRIES = 6


@dataclass(frozen=True)
class PullRequests:
    """The pull requests of a repository that concern one proposal."""

    client: Client
    repository: str
    proposal: Proposal

    def find(self) -> PullRequest | None:
        """Our open pull request from the branch into the base.

        Raises:
            InputError: there is one that somebody else opened.
        """
        for pull in self._from_our_branch(self.proposal.base):
            if marker(self.proposal.key) in (pull.body or "").replace("\r\n", "\n").split("\n"):
                return pull
            raise InputError(
                f"pull request {self.repository}#{pull.number} from {pull.head.ref} is not ours",
                field="--branch",
                fix="close it, or choose another branch",
            )
        return None

    def must_not_go_elsewhere(self) -> None:
        """Refuses a branch that is proposed to another base: that pull request would change, too.

        Raises:
            InputError: it is.
        """
        for pull in self._from_our_branch(None):
            if pull.base.ref != self.proposal.base:
                raise InputError(
                    f"the branch {pull.head.ref} is proposed to {pull.base.ref} already, by "
                    f"{self.repository}#{pull.number}",
                    field="--branch",
                    fix=f"name another branch to propose it to {self.proposal.base} from",
                )

    def _from_our_branch(self, base: str | None) -> list[PullRequest]:
        """The open pull requests from the branch, into `base` or into any."""
        owner, branch = self.repository.partition("/")[0], self.proposal.branch
        into = {} if base is None else {"base": base}
        found = self._ask(
            "listing the pull requests",
            lambda: list(
                self.client.api.get_repo(self.repository).get_pulls(
                    state="open", head=f"{owner}:{branch}", **into
                )
            ),
        )
        # A fork of the same owner may have a branch of this name, and may be deleted by now: then,
        # whatever PyGithub's types say, there is no repository. Names differ in case as one likes.
        ours = self.repository.casefold()
        return [
            pull
            for pull in found
            if pull.head.ref == branch
            and getattr(pull.head.repo, "full_name", "").casefold() == ours
        ]

    def bytes_of_others(self, pull: PullRequest | None) -> int:
        """What people wrote around our part of the body; it stays, so ours makes room."""
        theirs = (pull.body or "") if pull else ""
        return len(self.proposal.merged(f"{marker(self.proposal.key)}\n", theirs).encode())

    def write(
        self, pull: PullRequest | None, ours: str, *, moved: bool
    ) -> tuple[PullRequest, Action]:
        """Open the pull request, or bring the title and our part of the body up to date.

        Args:
            pull: the one there is.
            ours: our part of the body.
            moved: whether the branch has a new commit.
        """
        opened = pull is None
        pull = pull or self._open(ours)
        theirs = (pull.body or "").replace("\r\n", "\n")
        body, title = self.proposal.merged(ours, theirs), self.proposal.title
        same = (theirs.rstrip(), pull.title) == (body.rstrip(), title)
        if not same:
            current = pull
            self._ask("updating the pull request", lambda: current.edit(title=title, body=body))
        if opened:
            return pull, Action.OPENED
        return pull, Action.UNCHANGED if same and not moved else Action.UPDATED

    def _open(self, body: str) -> PullRequest:
        asked = self.proposal

        def create() -> PullRequest | None:
            try:
                return self.client.api.get_repo(self.repository).create_pull(
                    base=asked.base,
                    head=asked.branch,
                    title=asked.title,
                    body=body,
                    draft=asked.draft,
                )
            except GithubException as error:
                if error.status == 422 and "already exists" in str(error.data):
                    return None  # a racing run's; found below
                _explain(error)
                raise

        doing = f"opening a pull request in {self.repository}"
        for attempt in range(1, _TRIES + 1):
            made = self.client.create(doing, create, self.find, permission=_PERMISSION)
            if made := made or self.find():
                return made
            self.client.patience.sleep(self.client.patience.backoff(attempt))
        raise GitHubFailure(f"GitHub shows no pull request while {doing}")

    def label(self, pull: PullRequest) -> None:
        """Adds the labels that it lacks."""
        there = {label.name for label in pull.labels}
        missing = [name for name in dict.fromkeys(self.proposal.labels) if name not in there]
        if not missing:
            return
        # PyGithub sends a bare list, which GitHub takes and does not describe.
        self._ask(
            "labelling the pull request",
            lambda: self.client.api.requester.requestJsonAndCheck(
                "POST", f"{pull.issue_url}/labels", input={"labels": missing}
            ),
        )

    def ask_reviewers(self, pull: PullRequest, *, anew: bool) -> None:
        """Ask those who were not asked yet; after new weights also those who have reviewed."""
        # GitHub takes "Alice" for "alice", and so must whoever asks whether she was asked.
        asked = {user.login.casefold() for user in pull.requested_reviewers}
        teams = {team.slug for team in pull.requested_teams}
        wanted = dict.fromkeys(self.proposal.reviewers)
        people = [name for name in wanted if "/" not in name and name.casefold() not in asked]
        groups = [name.partition("/")[2] for name in wanted if "/" in name]
        groups = [slug for slug in groups if slug not in teams]
        if people and not anew:
            reviews = self._ask("listing the reviews", lambda: list(pull.get_reviews()))
            # The review of a deleted account has no user, whatever PyGithub's types say.
            done = {getattr(review.user, "login", "").casefold() for review in reviews}
            people = [name for name in people if name.casefold() not in done]
        if not people and not groups:
            return

        def request() -> None:
            try:
                pull.create_review_request(reviewers=people, team_reviewers=groups)
            except GithubException as error:
                if error.status != 422:
                    raise
                raise InputError(
                    f"the pull request {pull.html_url} is there, but GitHub asks none of "
                    f"{', '.join([*people, *groups])} for a review: {_said(error)}",
                    field="--reviewer",
                    fix="name collaborators other than its author, or teams of this organisation",
                ) from error

        self._ask("asking for reviews", request)

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        return self.client.repeat(f"{doing} of {self.repository}", call, permission=_PERMISSION)


def _said(error: GithubException) -> str:
    data = error.data
    return str(data.get("message", "") if isinstance(data, dict) else "")[:300]


def _explain(error: GithubException) -> None:
    """What GitHub's "no" to a new pull request means for the person who has to act, if we know."""
    said = _said(error)
    if error.status == 403 and "not permitted to create" in said:
        raise InputError(
            "GitHub Actions may not open pull requests here",
            file="repository settings",
            field="Actions → General → Workflow permissions",
            fix="allow GitHub Actions to create pull requests, or use an App's token",
        ) from error
    if error.status == 422 and "Draft" in said:
        raise InputError(
            "this repository has no draft pull requests", field="--draft", fix="leave it out"
        ) from error
