"""One pull request per adapter and base branch, however often it is proposed.

The branch moves first and the pull request follows; when that fails the branch goes back, so that
nothing is left half-done.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError
from adapterbot.gh import lfs
from adapterbot.gh.branches import Branches, Placement
from adapterbot.gh.client import Client
from adapterbot.gh.proposal import Action, Proposal, Proposed
from adapterbot.gh.pull_requests import PullRequests
from adapterbot.gh.refs import BranchMovedError
from adapterbot.gh.remote import Remote

_ROUNDS = 6
_TRAILER = "Adapterbot-Key"


def propose(client: Client, repository: str, remote: Remote, proposal: Proposal) -> Proposed:
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
    remote: Remote
    proposal: Proposal

    def settle(self) -> Proposed:
        """One round: look, commit, move the branch, then the pull request.

        Raises:
            BranchMovedError: somebody else was faster; look again.
        """
        asked = self.proposal
        branches = Branches(self.client, self.repository)
        pulls = PullRequests(self.client, self.repository, asked)
        base_head = branches.required(asked.base)
        tip = branches.head(asked.branch)
        pull = pulls.find() if tip else None
        if tip and pull is None:
            # Starting over would take the branch from under it.
            pulls.must_not_go_elsewhere()
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
            ours = asked.body(base_sha, pulls.bytes_of_others(pull))
            pull, action = pulls.write(pull, ours, moved=placed is not None)
        except BaseException:
            # Whatever happened: if this cannot be undone either, the next run finds its branch.
            with contextlib.suppress(AdapterbotError, BranchMovedError):
                self._take_back(branches, tip, placed)
            raise
        pulls.label(pull)
        pulls.ask_reviewers(pull, anew=placed is not None)
        return Proposed(action, base_sha, pull.html_url, pull.number, placed or tip)

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
            branches.delete(branch, placed)
        else:
            branches.move(branch, placed, tip, force=True)
