"""A GitHub event, turned into what we are asked to do. Pure: the payload and the environment come
in, a frozen Context comes out, and nothing here reads a file or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapterbot.errors import InputError
from adapterbot.records import CommitSha, Record, Source

GATED_ACTIONS = frozenset({"opened", "synchronize", "reopened", "ready_for_review"})
IGNORED_ACTIONS_NOTE = "nothing to evaluate on this action"


class Activity(StrEnum):
    """What an event asks for."""

    GATE = "gate"
    BISECT = "bisect"
    NOTHING = "nothing"


class BisectInputs(Record):
    """The inputs of a workflow_dispatch; empty means "not given"."""

    adapter: str = ""
    checkpoints: str = ""
    metric: str = ""


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
    api_url: str = "https://api.github.com"
    graphql_url: str = "https://api.github.com/graphql"
    bisect: BisectInputs = BisectInputs()

    def source(self) -> Source:
        """What the report says of its origin."""
        return Source(
            repository=self.repository,
            pull_request=self.pull_request,
            base_sha=self.base_sha,
            head_sha=self.head_sha,
            run_url=self.run_url,
        )


class _Payload(BaseModel):
    # GitHub adds fields when it likes; we read ours and ignore the rest.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Repository(_Payload):
    full_name: str


class _Ref(_Payload):
    ref: str
    sha: CommitSha
    repo: _Repository | None = None  # None when the fork was deleted


class _PullRequest(_Payload):
    number: Annotated[int, Field(ge=1)]
    base: _Ref
    head: _Ref


class _PullRequestEvent(_Payload):
    action: str
    pull_request: _PullRequest
    repository: _Repository


class _MergeGroup(_Payload):
    base_sha: CommitSha
    head_sha: CommitSha


class _MergeGroupEvent(_Payload):
    action: Literal["checks_requested", "destroyed"]
    merge_group: _MergeGroup
    repository: _Repository


class _DispatchEvent(_Payload):
    repository: _Repository
    inputs: dict[str, str | bool | int | float | None] | None = None


Event = TypeVar("Event", bound=_Payload)


def _read(model: type[Event], payload: object) -> Event:
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(
            f"{first['msg'][0].lower()}{first['msg'][1:]}",
            file="GITHUB_EVENT_PATH",
            field=".".join(str(part) for part in first["loc"]) or "the payload",
            fix="run from a GitHub workflow, or by hand with --base and --head",
        ) from error


def from_event(name: str, payload: object, environment: Mapping[str, str]) -> Context:
    """The Context of one event.

    Args:
        name: GITHUB_EVENT_NAME.
        payload: the parsed JSON of GITHUB_EVENT_PATH.
        environment: the runner's environment; only GITHUB_* and RUNNER_* names are read.

    Raises:
        InputError: an event that we refuse or do not know, or a payload without what it needs.
    """
    common = _common(environment)
    if name == "pull_request":
        return _pull_request(_read(_PullRequestEvent, payload), common)
    if name == "merge_group":
        return _merge_group(_read(_MergeGroupEvent, payload), common)
    if name == "workflow_dispatch":
        return _dispatch(_read(_DispatchEvent, payload), common)
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
        fix="use pull_request, merge_group or workflow_dispatch",
    )


def by_hand(base_sha: str | None, head_sha: str | None, environment: Mapping[str, str]) -> Context:
    """The Context of a gate that a person started in a checkout."""
    return Context.model_validate(
        {
            "activity": Activity.GATE,
            "reason": "started by hand",
            "event": "manual",
            "base_sha": base_sha,
            "head_sha": head_sha,
            **_urls(environment),
        }
    )


def _urls(environment: Mapping[str, str]) -> dict[str, str]:
    api = environment.get("GITHUB_API_URL", "").rstrip("/") or "https://api.github.com"
    # GHES serves REST at /api/v3 and GraphQL at /api/graphql.
    graphql = environment.get("GITHUB_GRAPHQL_URL", "").rstrip("/") or (
        f"{api.removesuffix('/v3')}/graphql"
    )
    return {"api_url": api, "graphql_url": graphql}


def _common(environment: Mapping[str, str]) -> dict[str, object]:
    server = environment.get("GITHUB_SERVER_URL", "").rstrip("/")
    repository = environment.get("GITHUB_REPOSITORY", "")
    run = environment.get("GITHUB_RUN_ID", "")
    attempt = environment.get("GITHUB_RUN_ATTEMPT", "")
    return {
        **_urls(environment),
        "run_id": int(run) if run.isdecimal() else 0,
        "run_attempt": int(attempt) if attempt.isdecimal() else 0,
        "self_hosted": environment.get("RUNNER_ENVIRONMENT", "") == "self-hosted",
        "run_url": f"{server}/{repository}/actions/runs/{run}"
        if server and repository and run
        else None,
    }


def _pull_request(event: _PullRequestEvent, common: Mapping[str, object]) -> Context:
    pull = event.pull_request
    head_repository = pull.head.repo.full_name if pull.head.repo else None
    gated = event.action in GATED_ACTIONS
    return Context.model_validate(
        {
            "activity": Activity.GATE if gated else Activity.NOTHING,
            "reason": f"pull request {event.action}"
            if gated
            else f"pull request {event.action}: {IGNORED_ACTIONS_NOTE}",
            "event": "pull_request",
            "repository": event.repository.full_name,
            "pull_request": pull.number,
            "base_sha": pull.base.sha,
            "head_sha": pull.head.sha,
            "from_fork": head_repository != event.repository.full_name,
            "can_comment": True,
            **common,
        }
    )


def _merge_group(event: _MergeGroupEvent, common: Mapping[str, object]) -> Context:
    asked = event.action == "checks_requested"
    return Context.model_validate(
        {
            "activity": Activity.GATE if asked else Activity.NOTHING,
            "reason": f"merge group {event.action}",
            "event": "merge_group",
            "repository": event.repository.full_name,
            "base_sha": event.merge_group.base_sha,
            "head_sha": event.merge_group.head_sha,
            **common,
        }
    )


def _dispatch(event: _DispatchEvent, common: Mapping[str, object]) -> Context:
    given = event.inputs or {}
    inputs = {
        name: "" if given.get(name) is None else str(given[name])
        for name in BisectInputs.model_fields
    }
    return Context.model_validate(
        {
            "activity": Activity.BISECT,
            "reason": "bisect started from the Actions tab",
            "event": "workflow_dispatch",
            "repository": event.repository.full_name,
            "bisect": BisectInputs(**inputs),
            **common,
        }
    )
