"""One pull request per adapter and base branch, however often it is proposed.

It is found again by its head branch and the marker in its body. The branch moves first and the
pull request follows; when that fails the branch goes back, so that nothing is left half-done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from github import GithubException
from github.PullRequest import PullRequest

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError
from adapterbot.gh import lfs
from adapterbot.gh.branches import Branches, Change, Placement
from adapterbot.gh.client import Client, UncertainWrite
from adapterbot.gh.refs import BranchMovedError
from adapterbot.marker import marker

T = TypeVar("T")

_PERMISSION = "pull-requests: write"
_ROUNDS = 6
_TRAILER = "Adapterbot-Key"


class Action(StrEnum):
    """What became of the pull request."""

    OPENED = "opened"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    NOTHING = "nothing to propose"


@dataclass(frozen=True)
class Proposal:
    """What is proposed, and to whom.

    Attributes:
        base, branch: where it goes, and the branch it is proposed from.
        key: what the marker in the body carries.
        subject: the first line of the commit's message, with nothing alive in it.
        body: (base commit, bytes that others need) → our part of the body, its first line the
            marker.
        merged: (ours, theirs) → a body that keeps what people wrote around our part.
        reviewers: logins, and teams as "org/team".
    """

    base: str
    branch: str
    key: str
    title: str
    subject: str
    change: Change
    body: Callable[[str, int], str]
    merged: Callable[[str, str], str]
    labels: Sequence[str] = ()
    reviewers: Sequence[str] = ()
    draft: bool = False


@dataclass(frozen=True)
class Proposed:
    """Where the pull request is and what was done. `url` is None when there was nothing to do."""

    action: Action
    base_sha: str
    url: str | None = None
    number: int | None = None
    commit: str | None = None


def propose(client: Client, repository: str, remote: lfs.Remote, proposal: Proposal) -> Proposed:
    """Open the pull request, or bring the one there is up to date.

    Args:
        remote: for a repository that keeps the adapter in Git LFS.

    Raises:
        InputError: a branch is missing or not ours, a permission is missing, or GitHub will not
            have a label, a reviewer or a draft.
        GitHubFailure: GitHub refused or did not answer; the branch is as it was before.
    """
    desk = _Desk(client, repository, remote, proposal)
    for attempt in range(1, _ROUNDS + 1):
        try:
            return desk.settle()
        except BranchMovedError:
            client.patience.sleep(client.patience.backoff(attempt))
    raise GitHubFailure(
        f"the branch {proposal.branch} of {repository} was moved {_ROUNDS} times while we wrote it",
        fix="look for another workflow that pushes to it",
    )


@dataclass(frozen=True)
class _Desk:
    client: Client
    repository: str
    remote: lfs.Remote
    proposal: Proposal

    @property
    def _branches(self) -> Branches:
        return Branches(self.client, self.repository)

    def settle(self) -> Proposed:
        """One round: look, commit, move the branch, then the pull request.

        Raises:
            BranchMovedError: somebody else was faster; look again.
        """
        branches, asked = self._branches, self.proposal
        base_head = branches.required(asked.base)
        tip = branches.refs.head(asked.branch)
        pull = self.find() if tip else None
        if tip and pull is None:
            # Starting over would take the branch from under it.
            self._must_not_go_elsewhere()
            self._must_be_ours(branches, tip)
        # Without a pull request, what an earlier run left on our branch starts over.
        onto, parent = (asked.branch, tip) if tip and pull else (asked.base, base_head)
        message = f"{asked.subject}\n\n{_TRAILER}: {asked.key}\n"
        wanted = Placement(asked.branch, tip, onto, parent, asked.change, message)
        placed = self._place(branches, wanted)
        if placed is None and pull is None:
            return Proposed(Action.NOTHING, base_head)
        base_sha = branches.fork_point(base_head, tip) if tip and pull else base_head
        try:
            ours = asked.body(base_sha, self._bytes_of_others(pull))
            pull, action = self._write(pull, ours, moved=placed is not None)
        except BaseException:
            # Whatever happened: if this cannot be undone either, the next run finds its branch.
            with contextlib.suppress(AdapterbotError, BranchMovedError):
                self._take_back(branches, tip, placed)
            raise
        self._label(pull)
        self._ask_reviewers(pull, anew=placed is not None)
        return Proposed(action, base_sha, pull.html_url, pull.number, placed or tip)

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

    def _must_not_go_elsewhere(self) -> None:
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

    def _must_be_ours(self, branches: Branches, tip: str) -> None:
        if f"{_TRAILER}: {self.proposal.key}" not in branches.message(tip).split("\n"):
            raise InputError(
                f"the branch {self.proposal.branch} of {self.repository} exists, and is not ours",
                field="--branch",
                fix="choose another branch, or delete this one",
            )

    def _place(self, branches: Branches, wanted: Placement) -> str | None:
        """Through the API, or through git where the repository keeps such files in Git LFS."""
        attributes = branches.attributes(wanted.parent, wanted.change)
        in_lfs = lfs.tracked(attributes, sorted(wanted.change.files))
        return lfs.place(self.remote, wanted, in_lfs) if in_lfs else branches.place(wanted)

    def _take_back(self, branches: Branches, tip: str | None, placed: str | None) -> None:
        branch = self.proposal.branch
        if placed is None:
            return
        if tip is None:
            branches.refs.delete(branch, placed)
        else:
            branches.refs.move(branch, placed, tip, force=True)

    # ------------------------------------------------------------ the pull request

    def _bytes_of_others(self, pull: PullRequest | None) -> int:
        """What people wrote around our part of the body; it stays, so ours makes room."""
        theirs = (pull.body or "") if pull else ""
        return len(self.proposal.merged(f"{marker(self.proposal.key)}\n", theirs).encode())

    def _write(
        self, pull: PullRequest | None, ours: str, *, moved: bool
    ) -> tuple[PullRequest, Action]:
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
        doubt: UncertainWrite | None = None
        for attempt in range(1, _ROUNDS + 1):
            try:
                made = self.client.write_once(doing, create, permission=_PERMISSION)
            except UncertainWrite as error:
                doubt, made = error, None
                self.client.patience.sleep(self.client.patience.backoff(attempt))
            made = made or self.find()
            if made:
                return made
        raise doubt or GitHubFailure(f"GitHub shows no pull request while {doing}")

    def _label(self, pull: PullRequest) -> None:
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

    def _ask_reviewers(self, pull: PullRequest, *, anew: bool) -> None:
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
