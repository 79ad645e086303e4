"""What becomes of a comment whose time has passed: it is gone, or folded away as history."""

from __future__ import annotations

from collections.abc import Callable

from github import GithubException
from github.IssueComment import IssueComment

from adapterbot.gh.client import Client

PERMISSION = "pull-requests: write"
_GONE = (404, 410)
_MINIMIZE = (
    "mutation($id: ID!) { minimizeComment(input: {subjectId: $id, classifier: OUTDATED}) "
    "{ minimizedComment { isMinimized } } }"
)


def unless_gone(call: Callable[[], object]) -> Callable[[], bool]:
    """The call, which then says whether there was still something to do it to: somebody else may
    have removed it, or an attempt of ours whose answer was lost."""

    def attempt() -> bool:
        try:
            call()
        except GithubException as error:
            if error.status in _GONE:
                return False
            raise
        return True

    return attempt


def fold(client: Client, label: str, comment: IssueComment) -> None:
    """Minimize a comment of ours as outdated, and take its marker away; one that is gone is as
    good.

    Args:
        label: of its pull request, such as "octo/adapters#7".

    Raises:
        InputError, GitHubFailure: GitHub refused or did not answer.
    """
    client.repeat(
        f"minimizing our earlier comment on {label}",
        unless_gone(lambda: client.query(_MINIMIZE, {"id": comment.node_id})),
        permission=PERMISSION,
    )
    # Without its marker it is history, and found no more.
    _, _, rest = (comment.body or "").partition("\n")
    client.repeat(
        f"updating our earlier comment on {label}",
        unless_gone(lambda: comment.edit(f"<!-- outdated -->\n{rest}")),
        permission=PERMISSION,
    )
