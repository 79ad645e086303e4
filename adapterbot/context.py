"""A GitHub event, turned into what we are asked to do. Pure: the payload and the environment come
in, a frozen Context comes out, and nothing here reads a file or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, TypedDict

from pydantic import Field

from adapterbot.errors import InputError
from adapterbot.payloads import (
    CheckRunEvent,
    DispatchEvent,
    IssueCommentEvent,
    MergeGroupEvent,
    PullRequestEvent,
    PushEvent,
    WorkflowRunEvent,
    read,
)
from adapterbot.records import CommitSha, Record, Source
from adapterbot.slash import Command, parse

# The last two a workflow hears of only where it lists them.
GATED_ACTIONS = frozenset({"opened", "synchronize", "reopened", "ready_for_review", "labeled"})


class Activity(StrEnum):
    """What an event asks for."""

    GATE = "gate"
    BISECT = "bisect"
    PUBLISH = "publish"
    ANSWER = "answer"
    NOTHING = "nothing"


class BisectInputs(Record):
    """The inputs of a workflow_dispatch; empty means "not given"."""

    adapter: str = ""
    checkpoints: str = ""
    metric: str = ""


class Origin(Record):
    """The head of the pull request that a finished run was about: GitHub's word, not the run's."""

    repository: str | None
    branch: str | None


class Asked(Record):
    """A comment that asks for something, and who wrote it."""

    comment: int
    author: str
    command: Command


class Context(Record):
    """Where we run, for whom, and what is to be done."""

    activity: Activity
    reason: str
    event: str
    repository: str | None = None
    pull_request: int | None = None
    base_sha: CommitSha | None = None
    head_sha: CommitSha | None = None
    from_fork: bool = False
    self_hosted: bool = False
    can_comment: bool = False
    run_url: str | None = None
    run_id: Annotated[int, Field(ge=0)] = 0
    run_attempt: Annotated[int, Field(ge=0)] = 0
    bisect: BisectInputs = BisectInputs()
    origin: Origin | None = None
    asked: Asked | None = None

    def source(self) -> Source:
        """What the report says of its origin."""
        return Source(
            repository=self.repository,
            pull_request=self.pull_request,
            base_sha=self.base_sha,
            head_sha=self.head_sha,
            run_url=self.run_url,
        )


class _Runner(TypedDict):
    """The fields of a Context that the runner's environment fills, whatever the event."""

    run_id: int
    run_attempt: int
    run_url: str | None
    self_hosted: bool


def from_event(name: str, payload: object, environment: Mapping[str, str]) -> Context:
    """The Context of one event.

    Args:
        name: GITHUB_EVENT_NAME.
        payload: the parsed JSON of GITHUB_EVENT_PATH.
        environment: the runner's environment; only GITHUB_* and RUNNER_* names are read.

    Raises:
        InputError: an event that we refuse or do not know, or a payload without what it needs.
    """
    runner = _runner(environment)
    if name == "pull_request":
        return _pull_request(read(PullRequestEvent, payload), runner)
    if name == "merge_group":
        return _merge_group(read(MergeGroupEvent, payload), runner)
    if name == "push":
        return _push(read(PushEvent, payload), runner)
    if name == "workflow_dispatch":
        return _dispatch(read(DispatchEvent, payload), runner)
    if name == "check_run":
        return _check_run(read(CheckRunEvent, payload), runner)
    if name == "workflow_run":
        return _workflow_run(read(WorkflowRunEvent, payload), runner, environment)
    if name == "issue_comment":
        return _issue_comment(read(IssueCommentEvent, payload), runner)
    if name == "pull_request_target":
        raise InputError(
            "runs a stranger's files with your secrets, so we refuse it",
            file="workflow",
            field="on: pull_request_target",
            fix="use `on: pull_request`",
        )
    if not name:
        raise InputError(
            "there is no event to work on",
            file="GITHUB_EVENT_NAME",
            fix="run from a GitHub workflow, or by hand with --base and --head",
        )
    raise InputError(
        f"we do not know what to do on the event {name!r}",
        file="workflow",
        field="on",
        fix="use pull_request, merge_group, push, workflow_dispatch, workflow_run, check_run or "
        "issue_comment",
    )


def by_hand(base_sha: str | None, head_sha: str | None) -> Context:
    """The Context of a gate that a person started in a checkout."""
    return Context(
        activity=Activity.GATE,
        reason="started by hand",
        event="manual",
        base_sha=base_sha,
        head_sha=head_sha,
    )


def api_url(environment: Mapping[str, str]) -> str:
    """Where GitHub's REST API is; outside of a runner, that of the server that is named, or
    GitHub's own."""
    given = environment.get("GITHUB_API_URL", "").rstrip("/")
    server = environment.get("GITHUB_SERVER_URL", "").rstrip("/")
    scheme, _, host = server.lower().partition("://")
    if given or host in ("", "github.com"):
        return given or "https://api.github.com"
    # An Enterprise in GitHub's own cloud is served as github.com is.
    return f"{scheme}://api.{host}" if host.endswith(".ghe.com") else f"{server}/api/v3"


def server_url(environment: Mapping[str, str]) -> str:
    """Where its repositories and runs are; outside of a runner, on the API's own host. A token that
    is for the one is nobody else's to see."""
    given = environment.get("GITHUB_SERVER_URL", "").rstrip("/")
    api = api_url(environment)
    if given or api.endswith("/api/v3"):
        return given or api.removesuffix("/api/v3")
    scheme, _, host = api.partition("://")
    return f"{scheme}://{host.removeprefix('api.')}"


def _runner(environment: Mapping[str, str]) -> _Runner:
    run = environment.get("GITHUB_RUN_ID", "")
    attempt = environment.get("GITHUB_RUN_ATTEMPT", "")
    return {
        "run_id": int(run) if run.isdecimal() else 0,
        "run_attempt": int(attempt) if attempt.isdecimal() else 0,
        "self_hosted": environment.get("RUNNER_ENVIRONMENT", "") == "self-hosted",
        "run_url": _run_url(environment, run),
    }


def _run_url(environment: Mapping[str, str], run: str) -> str | None:
    server = environment.get("GITHUB_SERVER_URL", "").rstrip("/")
    repository = environment.get("GITHUB_REPOSITORY", "")
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else None


def _pull_request(event: PullRequestEvent, runner: _Runner) -> Context:
    pull = event.pull_request
    head_repository = pull.head.repo.full_name if pull.head.repo else None
    other_base = event.action == "edited" and "base" in (event.changes or {})
    gated = event.action in GATED_ACTIONS or other_base
    return Context(
        activity=Activity.GATE if gated else Activity.NOTHING,
        reason=f"pull request {event.action}"
        if gated
        else f"pull request {event.action}: nothing to evaluate on this action",
        event="pull_request",
        repository=event.repository.full_name,
        pull_request=pull.number,
        base_sha=pull.base.sha,
        head_sha=pull.head.sha,
        from_fork=head_repository != event.repository.full_name,
        can_comment=True,
        **runner,
    )


def _merge_group(event: MergeGroupEvent, runner: _Runner) -> Context:
    asked = event.action == "checks_requested"
    return Context(
        activity=Activity.GATE if asked else Activity.NOTHING,
        reason=f"merge group {event.action}",
        event="merge_group",
        repository=event.repository.full_name,
        base_sha=event.merge_group.base_sha,
        head_sha=event.merge_group.head_sha,
        **runner,
    )


def _push(event: PushEvent, runner: _Runner) -> Context:
    """What was merged is judged once more, for the history: its commit is one that stays."""
    main = event.ref == f"refs/heads/{event.repository.default_branch}"
    both = set(event.before) != {"0"} != set(event.after)
    return Context(
        activity=Activity.GATE if main and both else Activity.NOTHING,
        reason="push to the default branch" if main else "push to another branch",
        event="push",
        repository=event.repository.full_name,
        base_sha=event.before,
        head_sha=event.after,
        **runner,
    )


def _dispatch(event: DispatchEvent, runner: _Runner) -> Context:
    given = event.inputs or {}
    inputs = {
        name: "" if given.get(name) is None else str(given[name])
        for name in BisectInputs.model_fields
    }
    return Context(
        activity=Activity.BISECT,
        reason="bisect started from the Actions tab",
        event="workflow_dispatch",
        repository=event.repository.full_name,
        bisect=BisectInputs(**inputs),
        **runner,
    )


def _check_run(event: CheckRunEvent, runner: _Runner) -> Context:
    """Somebody pressed "Re-run" beside a check. GitHub names pull requests of this repository only,
    so what is judged again is never a fork's."""
    check = event.check_run
    pull = next((p for p in check.pull_requests if p.head.sha == check.head_sha), None)
    asked = event.action == "rerequested" and pull is not None
    return Context(
        activity=Activity.GATE if asked else Activity.NOTHING,
        reason=f"check run {event.action}" + ("" if pull else ", about no pull request"),
        event="check_run",
        repository=event.repository.full_name,
        pull_request=pull.number if pull else None,
        base_sha=pull.base.sha if pull else None,
        head_sha=check.head_sha,
        can_comment=pull is not None,
        **runner,
    )


def _workflow_run(
    event: WorkflowRunEvent, runner: _Runner, environment: Mapping[str, str]
) -> Context:
    """The gate of a pull request ended, and its report waits to be posted."""
    run = event.workflow_run
    ended = event.action == "completed" and run.event == "pull_request"
    head = run.head_repository.full_name if run.head_repository else None
    # The gate's run, not the one that posts: its order, its artifacts, its summary.
    gates: _Runner = {
        **runner,
        "run_id": run.id,
        "run_attempt": run.run_attempt,
        "run_url": _run_url(environment, str(run.id)),
    }
    return Context(
        activity=Activity.PUBLISH if ended else Activity.NOTHING,
        reason=f"workflow run of {run.event} {event.action}",
        event="workflow_run",
        repository=event.repository.full_name,
        head_sha=run.head_sha,
        from_fork=head != event.repository.full_name,
        origin=Origin(repository=head, branch=run.head_branch),
        **gates,
    )


def _issue_comment(event: IssueCommentEvent, runner: _Runner) -> Context:
    """A comment on a pull request; edited ones ask for nothing, since who edited is not said."""
    command = parse(event.comment.body or "")
    author = event.comment.user.login if event.comment.user else ""
    asks = event.action == "created" and event.issue.pull_request is not None
    asked = Asked(comment=event.comment.id, author=author, command=command) if command else None
    return Context(
        activity=Activity.ANSWER if asks and asked and author else Activity.NOTHING,
        reason=f"comment {event.action}" + ("" if command else ", no command"),
        event="issue_comment",
        repository=event.repository.full_name,
        pull_request=event.issue.number,
        can_comment=event.issue.pull_request is not None,
        asked=asked,
        **runner,
    )
