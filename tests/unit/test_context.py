"""A GitHub event becomes one activity, or one clear refusal."""

from __future__ import annotations

from typing import Any

import pytest

from adapterbot.context import (
    Activity,
    BisectInputs,
    Origin,
    api_url,
    by_hand,
    from_event,
    server_url,
)
from adapterbot.errors import InputError

BASE, HEAD = "a" * 40, "b" * 40
RUNNER = {
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "team/adapters",
    "GITHUB_RUN_ID": "7",
    "GITHUB_RUN_ATTEMPT": "3",
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


@pytest.mark.parametrize(
    "action", ["opened", "synchronize", "reopened", "ready_for_review", "labeled"]
)
def test_a_pull_request_is_gated(action: str) -> None:
    context = from_event("pull_request", pull_request(action), RUNNER)
    assert context.activity is Activity.GATE
    assert (context.base_sha, context.head_sha, context.pull_request) == (BASE, HEAD, 12)
    assert (context.can_comment, context.self_hosted, context.from_fork) == (True, True, False)
    assert context.run_url == "https://github.example/team/adapters/actions/runs/7"
    assert (context.run_id, context.run_attempt) == (7, 3)


def test_another_base_is_judged_anew_and_another_title_is_not() -> None:
    for edited, activity in (("base", Activity.GATE), ("title", Activity.NOTHING)):
        event = {**pull_request("edited"), "changes": {edited: {"from": "before"}}}
        assert from_event("pull_request", event, RUNNER).activity is activity


@pytest.mark.parametrize("action", ["closed", "unlabeled", "edited"])
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


@pytest.mark.parametrize(
    ("change", "activity"),
    [
        ({}, Activity.GATE),
        ({"ref": "refs/heads/other"}, Activity.NOTHING),
        ({"ref": "refs/tags/main"}, Activity.NOTHING),
        ({"before": "0" * 40}, Activity.NOTHING),
        ({"after": "0" * 40}, Activity.NOTHING),
    ],
)
def test_a_push_to_the_default_branch_is_gated(change: dict[str, Any], activity: Activity) -> None:
    event = {
        "ref": "refs/heads/main",
        "before": "a" * 40,
        "after": "b" * 40,
        "repository": {"full_name": "acme/adapters", "default_branch": "main"},
    }
    context = from_event("push", event | change, RUNNER)
    assert context.activity is activity
    assert not context.can_comment
    if activity is Activity.GATE:
        assert (context.base_sha, context.head_sha) == ("a" * 40, "b" * 40)


@pytest.mark.parametrize(("name", "says"), [("", "no event"), ("fork", "'fork'")])
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
    assert public.run_url is None


@pytest.mark.parametrize(
    ("api", "server"),
    [
        ("https://api.github.com", "https://github.com"),
        ("https://ghe.example/api/v3", "https://ghe.example"),
        ("https://ghe.example:8443/api/v3", "https://ghe.example:8443"),
        ("https://api.ghe.example/api/v3", "https://api.ghe.example"),
        ("https://api.octo.ghe.com", "https://octo.ghe.com"),
    ],
)
def test_attack_where_one_address_of_an_enterprise_is_named_the_other_is_there_too(
    api: str, server: str
) -> None:
    """With GitHub's own in its place the Enterprise's token would be sent to github.com."""
    assert server_url({"GITHUB_API_URL": f"{api}/"}) == server
    assert api_url({"GITHUB_SERVER_URL": f"{server}/"}) == api
    named = {"GITHUB_API_URL": api, "GITHUB_SERVER_URL": "file:///hub"}
    assert (api_url(named), server_url(named)) == (api, "file:///hub")
    assert (api_url({}), server_url({})) == ("https://api.github.com", "https://github.com")


def test_by_hand_there_is_nobody_to_comment_to() -> None:
    context = by_hand(BASE, None)
    assert context.activity is Activity.GATE
    assert not context.can_comment
    assert context.source().base_sha == BASE


def workflow_run(**changes: Any) -> dict[str, Any]:
    run = {
        "id": 41,
        "run_attempt": 2,
        "event": "pull_request",
        "head_sha": HEAD,
        "head_branch": "retrain",
        "head_repository": {"full_name": "stranger/adapters"},
        **changes,
    }
    return {
        "action": "completed",
        "workflow_run": run,
        "repository": {"full_name": "team/adapters"},
    }


def test_a_finished_run_is_published_with_the_runs_own_order_and_address() -> None:
    runner = {**RUNNER, "GITHUB_RUN_ATTEMPT": "1"}
    context = from_event("workflow_run", workflow_run(), runner)
    assert context.activity is Activity.PUBLISH
    assert (context.run_id, context.run_attempt, context.head_sha) == (41, 2, HEAD)
    assert context.run_url == "https://github.example/team/adapters/actions/runs/41"
    assert context.origin == Origin(repository="stranger/adapters", branch="retrain")
    assert context.from_fork
    assert (context.pull_request, context.can_comment) == (None, False)


@pytest.mark.parametrize(
    "changes", [{"event": "push"}, {"event": "pull_request_target"}, {"head_repository": None}]
)
def test_other_runs_name_no_pull_request(changes: dict[str, Any]) -> None:
    context = from_event("workflow_run", workflow_run(**changes), {})
    if "event" in changes:
        assert context.activity is Activity.NOTHING
    else:
        assert context.origin == Origin(repository=None, branch="retrain")


def check_run(action: str = "rerequested", **changes: Any) -> dict[str, Any]:
    # A pull request as octokit/webhooks has it in check_run/rerequested.payload.json: less of it
    # than its own event tells.
    repo = {"id": 1, "url": "https://api.github.com/repos/team/adapters", "name": "adapters"}
    pull = {
        "url": "https://api.github.com/repos/team/adapters/pulls/12",
        "id": 2,
        "number": 12,
        "head": {"ref": "retrain", "sha": HEAD, "repo": repo},
        "base": {"ref": "main", "sha": BASE, "repo": repo},
    }
    run = {"name": "adapterbot", "head_sha": HEAD, "pull_requests": [pull], **changes}
    return {"action": action, "check_run": run, "repository": {"full_name": "team/adapters"}}


def test_the_rerun_button_beside_a_check_gates_its_commit_again() -> None:
    context = from_event("check_run", check_run(), {**RUNNER, "GITHUB_RUN_ID": "x"})
    assert context.activity is Activity.GATE
    assert (context.pull_request, context.base_sha, context.head_sha) == (12, BASE, HEAD)
    assert (context.can_comment, context.run_id) == (True, 0)


@pytest.mark.parametrize(
    "event",
    [check_run("created"), check_run("completed"), check_run(pull_requests=[])],
    ids=["created", "completed", "of-a-fork"],
)
def test_other_news_of_checks_asks_for_nothing(event: dict[str, Any]) -> None:
    assert from_event("check_run", event, RUNNER).activity is Activity.NOTHING


def test_a_check_whose_pull_request_moved_on_asks_for_nothing() -> None:
    moved = check_run(head_sha="c" * 40)
    context = from_event("check_run", moved, RUNNER)
    assert context.activity is Activity.NOTHING
    assert "no pull request" in context.reason


@pytest.mark.parametrize(
    ("body", "user", "asks"),
    [
        ("/adapterbot rerun", {"login": "alice"}, True),
        ("/adapterbot rerun", None, False),
        ("looks good", {"login": "alice"}, False),
        (None, {"login": "alice"}, False),
    ],
)
def test_a_comment_asks_only_with_a_command_and_an_author(
    body: str | None, user: object, asks: bool
) -> None:
    event = {
        "action": "created",
        "issue": {"number": 12, "pull_request": {}},
        "comment": {"id": 5, "body": body, "user": user},
        "repository": {"full_name": "team/adapters"},
    }
    context = from_event("issue_comment", event, RUNNER)
    assert (context.activity is Activity.ANSWER) is asks
    assert context.head_sha is None, "a comment's event does not say at which commit it is"
