"""A GitHub event becomes one activity, or one clear refusal."""

from __future__ import annotations

from typing import Any

import pytest

from adapterbot.context import Activity, BisectInputs, by_hand, from_event
from adapterbot.errors import InputError

BASE, HEAD = "a" * 40, "b" * 40
RUNNER = {
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "team/adapters",
    "GITHUB_RUN_ID": "7",
    "GITHUB_API_URL": "https://github.example/api/v3",
    "RUNNER_ENVIRONMENT": "self-hosted",
}


def pull_request(action: str = "opened", **changes: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "action": action,
        "repository": {"full_name": "team/adapters"},
        "pull_request": {
            "number": 12,
            "base": {"ref": "main", "sha": BASE, "repo": {"full_name": "team/adapters"}},
            "head": {"ref": "retrain", "sha": HEAD, "repo": {"full_name": "team/adapters"}},
        },
    }
    event["pull_request"].update(changes)
    return event


@pytest.mark.parametrize("action", ["opened", "synchronize", "reopened", "ready_for_review"])
def test_a_pull_request_is_gated(action: str) -> None:
    context = from_event("pull_request", pull_request(action), RUNNER)
    assert context.activity is Activity.GATE
    assert (context.base_sha, context.head_sha, context.pull_request) == (BASE, HEAD, 12)
    assert (context.can_comment, context.self_hosted, context.from_fork) == (True, True, False)
    assert context.run_url == "https://github.example/team/adapters/actions/runs/7"


@pytest.mark.parametrize("action", ["closed", "labeled", "edited"])
def test_other_actions_ask_for_nothing(action: str) -> None:
    context = from_event("pull_request", pull_request(action), RUNNER)
    assert context.activity is Activity.NOTHING
    assert action in context.reason


@pytest.mark.parametrize("repo", [{"full_name": "stranger/adapters"}, None])
def test_a_fork_is_seen_also_when_it_was_deleted(repo: object) -> None:
    event = pull_request(head={"ref": "x", "sha": HEAD, "repo": repo})
    assert from_event("pull_request", event, RUNNER).from_fork


def test_a_merge_group_is_gated_without_a_comment() -> None:
    event = {
        "action": "checks_requested",
        "merge_group": {"base_ref": "refs/heads/main", "base_sha": BASE, "head_sha": HEAD},
        "repository": {"full_name": "team/adapters"},
    }
    context = from_event("merge_group", event, RUNNER)
    assert context.activity is Activity.GATE
    assert not context.can_comment
    destroyed = from_event("merge_group", {**event, "action": "destroyed"}, RUNNER)
    assert destroyed.activity is Activity.NOTHING


def test_a_dispatch_bisects_with_its_inputs() -> None:
    event = {
        "repository": {"full_name": "team/adapters"},
        "inputs": {"adapter": "adapters/dates", "metric": "date_us", "checkpoints": None},
    }
    context = from_event("workflow_dispatch", event, {})
    assert context.activity is Activity.BISECT
    assert context.bisect == BisectInputs(adapter="adapters/dates", metric="date_us")
    bare = from_event("workflow_dispatch", {"repository": {"full_name": "a/b"}}, {})
    assert bare.bisect == BisectInputs()


def test_pull_request_target_is_refused() -> None:
    # The attack: a fork's files run with the base repository's secrets.
    with pytest.raises(InputError, match="stranger") as caught:
        from_event("pull_request_target", pull_request(), RUNNER)
    assert "pull_request" in (caught.value.fix or "")


@pytest.mark.parametrize(("name", "says"), [("", "no event"), ("push", "'push'")])
def test_unknown_events_are_named(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        from_event(name, {}, {})


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({}, "action"),
        (pull_request(number=0), "pull_request.number"),
        (pull_request(head={"ref": "x", "sha": "b" * 39}), "pull_request.head.sha"),
        (pull_request(head={"ref": "x", "sha": "b" * 40 + "\n"}), "pull_request.head.sha"),
        (pull_request(head={"ref": "x", "sha": "--upload-pack=x"}), "pull_request.head.sha"),
        ([], "the payload"),
    ],
)
def test_a_malformed_payload_names_its_field(event: object, field: str) -> None:
    with pytest.raises(InputError) as caught:
        from_event("pull_request", event, RUNNER)
    assert caught.value.field == field


def test_addresses_of_github_and_of_an_enterprise_server() -> None:
    public = from_event("pull_request", pull_request(), {})
    assert public.api_url == "https://api.github.com"
    assert public.graphql_url == "https://api.github.com/graphql"
    assert public.run_url is None
    ghes = from_event("pull_request", pull_request(), RUNNER)
    assert ghes.graphql_url == "https://github.example/api/graphql"
    named = {**RUNNER, "GITHUB_GRAPHQL_URL": "https://other.example/graphql/"}
    assert from_event("pull_request", pull_request(), named).graphql_url == (
        "https://other.example/graphql"
    )


def test_by_hand_there_is_nobody_to_comment_to() -> None:
    context = by_hand(BASE, None, {})
    assert context.activity is Activity.GATE
    assert not context.can_comment
    assert context.source().base_sha == BASE
