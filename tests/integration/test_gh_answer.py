"""Slash commands: who may ask, for what, and about which commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbot.commands import answer, gate, publish
from adapterbot.commands.answer import Answer
from adapterbot.errors import InputError
from adapterbot.records import Source
from tests.github_server import Fault, GitHubServer
from tests.golden.reports import REPORTS

REPO, PULL, HEAD, BASE = "octo/adapters", 7, "c" * 40, "a" * 40


@pytest.fixture
def server(github: GitHubServer) -> GitHubServer:
    github.add_pull(REPO, PULL, head_sha=HEAD, base_sha=BASE)
    github.world.permissions[REPO, "alice"] = "write"
    return github


@pytest.fixture
def ask(server: GitHubServer, tmp_path: Path) -> Callable[..., Answer]:
    def asked(body: str, author: str = "alice", action: str = "created", **changes: Any) -> Answer:
        return answer.run(environment(server, tmp_path, body, author, action, **changes))

    return asked


def environment(
    server: GitHubServer, place: Path, body: str, author: str, action: str, **changes: Any
) -> dict[str, str]:
    comment = server.add_comment(REPO, PULL, body, author=author)
    payload = {
        "action": action,
        "issue": {"number": PULL, "pull_request": {"url": "https://x"}, **changes},
        "comment": {"id": comment.id, "body": body, "user": {"login": author}},
        "repository": {"full_name": REPO},
    }
    (place / "event.json").write_text(json.dumps(payload))
    return {
        "GITHUB_EVENT_NAME": "issue_comment",
        "GITHUB_EVENT_PATH": str(place / "event.json"),
        "GITHUB_API_URL": server.url,
        "GITHUB_TOKEN": "t0ken",
        "GITHUB_OUTPUT": str(place / "output"),
        "RUNNER_TEMP": str(place),
    }


def reactions(server: GitHubServer) -> list[str]:
    return [r for comment in server.comments(REPO, PULL) for r in comment.reactions]


def replies(server: GitHubServer) -> list[str]:
    return [c.body for c in server.comments(REPO, PULL) if c.author == "github-actions[bot]"]


@pytest.mark.parametrize(
    ("body", "asked", "metric"),
    [
        ("/adapterbot rerun", "rerun", ""),
        ("/adapterbot bisect", "bisect", ""),
        ("/adapterbot  bisect dates_us  ", "bisect", "dates_us"),
        ("/adapterbot bisect dates_us\n\nThanks!\n/adapterbot rerun", "bisect", "dates_us"),
    ],
)
def test_a_writer_is_heard_and_bound_to_the_commit_of_that_moment(server, ask, body, asked, metric):
    assert ask(body) == Answer(asked, metric, HEAD, BASE)
    assert reactions(server) == ["eyes"]
    assert replies(server) == []


@pytest.mark.parametrize("body", ["/adapterbot help", "/adapterbot", "/adapterbot dance"])
def test_help_and_what_is_not_understood_are_answered(server, ask, body):
    assert ask(body) == Answer()
    (reply,) = replies(server)
    assert "/adapterbot bisect [metric]" in reply
    assert len(reactions(server)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "/adapterbot bisect $(id)",
        "/adapterbot bisect a;b",
        "/adapterbot bisect --config=evil.yaml",
        "/adapterbot bisect a\u202eb",
        "/adapterbot bisect ::set-output",
        "/adapterbot bisect " + "x" * 101,
        "/adapterbot rerun now please",
    ],
)
def test_attack_no_other_word_of_a_comment_is_passed_on(server, ask, body):
    assert ask(body) == Answer()
    assert reactions(server) == ["confused"]


@pytest.mark.parametrize(
    ("body", "action", "changes"),
    [
        ("please /adapterbot rerun", "created", {}),
        ("> /adapterbot rerun", "created", {}),
        ("\n/adapterbot rerun", "created", {}),
        ("/adapterbotrerun", "created", {}),
        ("/adapterbot rerun", "edited", {}),
        ("/adapterbot rerun", "deleted", {}),
        ("/adapterbot rerun", "created", {"pull_request": None}),
    ],
    ids=["later", "quoted", "second-line", "glued", "edited", "deleted", "issue"],
)
def test_what_is_no_command_costs_no_request(server, ask, body, action, changes):
    assert ask(body, action=action, **changes) == Answer()
    assert server.requests == []


@pytest.mark.parametrize("level", ["none", "read"])
def test_attack_a_stranger_is_refused_by_githubs_word_and_not_the_events(server, ask, level):
    server.world.permissions[REPO, "mallory"] = level
    assert ask("/adapterbot rerun", author="mallory") == Answer()
    assert reactions(server) == ["-1"]
    (reply,) = replies(server)
    assert reply.splitlines()[1].startswith("Not done: only people who may push")


def test_an_app_that_github_calls_no_user_is_refused_and_told_so(server, ask):
    author = "dependabot[bot]"
    server.inject(Fault("GET", "/permission$", status=404, message=f"{author} is not a user"))
    assert ask("/adapterbot rerun", author=author) == Answer()
    assert reactions(server) == ["-1"]
    assert "Not done" in replies(server)[0]


def test_attack_a_forks_files_are_not_started_by_a_comment(server, ask):
    server.add_pull(REPO, PULL, head_sha=HEAD, head_repository="stranger/adapters")
    assert ask("/adapterbot rerun") == Answer()
    assert "fork" in replies(server)[0]


def test_a_reply_whose_post_got_no_answer_is_sent_once(server, ask, monkeypatch):
    monkeypatch.setattr("adapterbot.gh.client.Patience.backoff", lambda *_: 0.0)
    server.inject(Fault("POST", "/comments$", status=502, after_write=True))
    ask("/adapterbot help")
    assert len(replies(server)) == 1
    server.inject(Fault("POST", "/comments$", reset=True))
    ask("/adapterbot help")
    assert len(replies(server)) == 2


def test_attack_a_strangers_forged_reply_is_not_taken_for_ours(server, ask, monkeypatch):
    monkeypatch.setattr("adapterbot.gh.client.Patience.backoff", lambda *_: 0.0)

    def forged(method: str, path: str) -> Fault | None:
        if method != "POST" or not path.endswith("/comments") or len(server.requests) > 3:
            return None
        asked = server.comments(REPO, PULL)[0].id
        text = f"<!-- adapterbot-reply:{asked} -->\nDone."
        server.add_comment(REPO, PULL, text, author="mallory")
        return Fault(status=502)

    server.chaos = forged
    ask("/adapterbot help")
    assert len(replies(server)) == 1


# ---------------------------------------------------------------- what is done with it


def test_attack_a_push_after_the_command_is_not_run_on_its_say_so(server, tmp_path):
    given = environment(server, tmp_path, "/adapterbot rerun", "alice", "created")
    server.add_pull(REPO, PULL, head_sha="d" * 40, base_sha=BASE)
    with pytest.raises(InputError, match="has moved on since"):
        gate.run(gate.GateOptions(head=HEAD, base=BASE), given)


@pytest.mark.parametrize("head", [None, "main", "HEAD", "c" * 39, "--upload-pack=x"])
def test_a_command_needs_the_commit_that_it_was_bound_to(server, tmp_path, head):
    given = environment(server, tmp_path, "/adapterbot rerun", "alice", "created")
    with pytest.raises(InputError, match="commit"):
        gate.run(gate.GateOptions(head=head, base=BASE), given)
    assert server.requests == []


def test_the_report_of_what_was_asked_for_is_posted_under_its_commit(server, tmp_path):
    given = environment(server, tmp_path, "/adapterbot rerun", "alice", "created")
    source = Source(repository=REPO, pull_request=PULL, head_sha=HEAD)
    told = REPORTS["passed"]().model_copy(update={"source": source})
    path = tmp_path / "report.json"
    path.write_text(told.model_dump_json())
    publish.run(path, None, head=HEAD, environment=given)
    assert {check["head_sha"] for check in server.check_runs} == {HEAD}
    assert any("✅" in reply for reply in replies(server))
