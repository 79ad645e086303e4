"""The parts of GitHub's webhook payloads that we read, as models that refuse what they are not.

GitHub writes them, but branch names, logins and comments in them are a stranger's words.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapterbot.errors import InputError
from adapterbot.files.validation import first_problem
from adapterbot.records import CommitSha

Number = Annotated[int, Field(ge=1)]


class Payload(BaseModel):
    """GitHub adds fields when it likes; we read ours and ignore the rest."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Repository(Payload):
    """Whose it is."""

    full_name: str


class Ref(Payload):
    """One side of a pull request. `repo` is None when the fork was deleted."""

    ref: str
    sha: CommitSha
    repo: Repository | None = None


class PullRequest(Payload):
    """A pull request as its own event has it."""

    number: Number
    base: Ref
    head: Ref


class PullRequestEvent(Payload):
    """`pull_request`. `changes` says what was edited."""

    action: str
    changes: dict[str, object] | None = None
    pull_request: PullRequest
    repository: Repository


class MergeGroup(Payload):
    """What a merge queue wants to merge."""

    base_sha: CommitSha
    head_sha: CommitSha


class MergeGroupEvent(Payload):
    """`merge_group`."""

    action: Literal["checks_requested", "destroyed"]
    merge_group: MergeGroup
    repository: Repository


class PushedRepository(Repository):
    """A push says which branch is the default one."""

    default_branch: str


class PushEvent(Payload):
    """`push`. A branch that is new has forty zeros `before`, one that was removed `after`."""

    ref: str
    before: CommitSha
    after: CommitSha
    repository: PushedRepository


class DispatchEvent(Payload):
    """`workflow_dispatch`."""

    repository: Repository
    inputs: dict[str, str | bool | int | float | None] | None = None


class WorkflowRun(Payload):
    """A run that ended. `event` is what had started it."""

    id: Number
    run_attempt: Number = 1
    event: str
    head_sha: CommitSha
    head_branch: str | None = None
    head_repository: Repository | None = None


class WorkflowRunEvent(Payload):
    """`workflow_run`."""

    action: str
    workflow_run: WorkflowRun
    repository: Repository


class CheckRef(Payload):
    """One side of it. The repository's full name, which `Ref` asks for, is not told here."""

    sha: CommitSha


class CheckPull(Payload):
    """A pull request as a check run names it; GitHub names none from forks."""

    number: Number
    base: CheckRef
    head: CheckRef


class CheckRun(Payload):
    """A check somebody wants to see again."""

    name: str
    head_sha: CommitSha
    pull_requests: tuple[CheckPull, ...] = ()


class CheckRunEvent(Payload):
    """`check_run`."""

    action: str
    check_run: CheckRun
    repository: Repository


class Account(Payload):
    """Who wrote it."""

    login: str


class Comment(Payload):
    """A comment, whoever wrote it. `user` is None when the account was deleted."""

    id: Number
    body: str | None = None
    user: Account | None = None


class Issue(Payload):
    """What was commented on; `pull_request` is there when it is one."""

    number: Number
    pull_request: dict[str, object] | None = None


class IssueCommentEvent(Payload):
    """`issue_comment`."""

    action: str
    issue: Issue
    comment: Comment
    repository: Repository


Event = TypeVar("Event", bound=Payload)


def read(model: type[Event], payload: object) -> Event:
    """The payload as this model.

    Raises:
        InputError: naming the field that is not what it should be.
    """
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        field, message = first_problem(error)
        raise InputError(
            message,
            file="GITHUB_EVENT_PATH",
            field=field or "the payload",
            fix="run from a GitHub workflow, or by hand with --base and --head",
        ) from error
