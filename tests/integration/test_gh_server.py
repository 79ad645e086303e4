"""The test server itself: what it must catch, or every other test proves little."""

import json
from collections.abc import Iterator

import pytest
import requests

from tests.github_server import GitHubServer

REPO = "octo/adapters"


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as server:
        server.add_token("t0ken")
        server.add_token("pat", "alice")
        server.add_pull(REPO, 7, head_sha="c" * 40, files=["adapters/dates/a.bin", "soup.yaml"])
        yield server


def ask(server, method, path, body=None, token="t0ken"):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.request(method, server.url + path, json=body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/nowhere", None),
        ("PUT", f"/repos/{REPO}/issues/7/comments", {}),
        ("GET", f"/repos/{REPO}/issues/seven/comments", None),
        ("POST", f"/repos/{REPO}/issues/7/comments", {}),
        ("POST", f"/repos/{REPO}/issues/7/comments", {"body": 3}),
        ("POST", f"/repos/{REPO}/issues/7/comments", None),
        ("POST", f"/repos/{REPO}/check-runs", {"name": "x"}),
        ("POST", f"/repos/{REPO}/statuses/{'c' * 40}", {"state": "splendid"}),
        ("POST", "/graphql", {"query": "{ everything }"}),
        ("GET", f"/repos/{REPO}/actions/artifacts", None),  # described, not implemented
    ],
)
def test_a_request_that_github_does_not_describe_is_a_violation(server, method, path, body):
    assert ask(server, method, path, body).status_code >= 400
    assert len(server.violations) == 1
    assert path.split("?")[0] in server.violations[0] or "GraphQL" in server.violations[0]


def test_a_reply_of_ours_that_github_would_not_send_is_a_violation(server):
    server.add_comment(REPO, 7, "x", author="alice").created_at = 3
    ask(server, "GET", f"/repos/{REPO}/issues/7/comments")
    assert "created_at" in server.violations[0]


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_request_needs_a_token(server, token):
    reply = ask(server, "GET", f"/repos/{REPO}", token=token)
    assert reply.status_code == 401
    assert server.requests[0].login is None


def test_no_token_is_kept_in_the_log(server):
    ask(server, "GET", f"/repos/{REPO}")
    assert "t0ken" not in repr(server.requests)


def test_pages_link_to_each_other(server):
    for index in range(7):
        server.add_comment(REPO, 7, str(index), author="alice")
    url: str | None = f"{server.url}/repos/{REPO}/issues/7/comments?per_page=3"
    seen = []
    while url:
        reply = requests.get(url, headers={"Authorization": "token t0ken"}, timeout=60)
        seen.append([comment["body"] for comment in reply.json()])
        url = reply.links.get("next", {}).get("url")
    assert seen == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert server.violations == []


def test_the_operations_of_later_work_fit_the_description(server):
    assert ask(server, "GET", f"/repos/{REPO}").json()["full_name"] == REPO
    assert ask(server, "GET", "/user", token="pat").json()["login"] == "alice"
    assert ask(server, "GET", "/user").status_code == 403  # why we ask GraphQL who we are
    pull = ask(server, "GET", f"/repos/{REPO}/pulls/7").json()
    assert pull["head"]["sha"] == "c" * 40
    assert [p["number"] for p in ask(server, "GET", f"/repos/{REPO}/pulls").json()] == [7]
    files = ask(server, "GET", f"/repos/{REPO}/pulls/7/files").json()
    assert [file["filename"] for file in files] == ["adapters/dates/a.bin", "soup.yaml"]
    labels = {"labels": ["adapter"]}
    assert ask(server, "POST", f"/repos/{REPO}/issues/7/labels", labels).status_code == 200
    comment = server.add_comment(REPO, 7, "/adapterbot rerun", author="alice")
    path = f"/repos/{REPO}/issues/comments/{comment.id}"
    assert ask(server, "GET", path).json()["body"] == "/adapterbot rerun"
    assert ask(server, "POST", f"{path}/reactions", {"content": "eyes"}).status_code == 201
    server.world.permissions[REPO, "alice"] = "write"
    level = ask(server, "GET", f"/repos/{REPO}/collaborators/alice/permission").json()
    assert level["permission"] == "write"
    status = {"state": "failure", "context": "adapterbot"}
    assert ask(server, "POST", f"/repos/{REPO}/statuses/{'c' * 40}", status).status_code == 201
    assert server.violations == []


def test_a_check_run_lives_and_keeps_its_annotations(server):
    start = {"name": "adapterbot", "head_sha": "c" * 40, "status": "in_progress"}
    run = ask(server, "POST", f"/repos/{REPO}/check-runs", start).json()
    annotation = {
        "path": "soup.yaml",
        "start_line": 3,
        "end_line": 3,
        "annotation_level": "failure",
        "message": "drift",
    }
    output = {"title": "Drift", "summary": "x", "annotations": [annotation]}
    path = f"/repos/{REPO}/check-runs/{run['id']}"
    end = ask(server, "PATCH", path, {"conclusion": "failure", "output": output}).json()
    assert (end["status"], end["conclusion"]) == ("completed", "failure")
    assert ask(server, "GET", path).json()["output"]["annotations_count"] == 1
    assert server.check_runs[0]["annotations"] == [annotation]
    assert server.violations == []


def test_the_slice_is_small_and_holds_what_the_script_lists():
    from scripts.openapi_slice import DEFAULT_OUTPUT, OPERATIONS

    document = json.loads(DEFAULT_OUTPUT.read_text())
    found = {
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert found == OPERATIONS
    assert DEFAULT_OUTPUT.stat().st_size < 1024 * 1024
