"""What people ask for on a pull request that is open already, under a real runner engine: slash
commands in comments, from the comment to what is done about it, and the "Re-run" of a check."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import example
from tests.e2e.act import ROOT, ActRun, run_act
from tests.github_server import GitHubServer
from tests.github_server.records import Comment

EXAMPLES = ROOT / "docs" / "examples"
COMMANDS, APP_GATE = "adapter-commands.yml", "adapter-gate-app.yml"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example on a poisoned branch. No run changes it: each works on a copy of its own."""
    folder = example.build(tmp_path_factory.mktemp("commands") / "adapters")
    (folder / ".github" / "workflows").mkdir(parents=True)
    for workflow in (COMMANDS, APP_GATE):
        shutil.copy(EXAMPLES / workflow, folder / ".github" / "workflows")
    return folder


@pytest.fixture
def server(server: GitHubServer, repository: Path) -> GitHubServer:
    server.add_pull(
        example.REPOSITORY,
        example.NUMBER,
        head_sha=example.git(repository, "rev-parse", "HEAD"),
        base_sha=example.git(repository, "rev-parse", "main"),
    )
    server.world.permissions[example.REPOSITORY, "alice"] = "write"
    return server


def say(
    server: GitHubServer, repository: Path, text: str, author: str = "alice"
) -> tuple[Comment, ActRun]:
    """Somebody comments, and the workflows run."""
    comment = server.add_comment(example.REPOSITORY, example.NUMBER, text, author=author)
    payload = {
        "action": "created",
        "repository": {"full_name": example.REPOSITORY},
        "issue": {"number": example.NUMBER, "pull_request": {"url": "https://x"}},
        "comment": {"id": comment.id, "body": text, "user": {"login": author}},
    }
    return comment, act(repository, "issue_comment", payload, server, COMMANDS)


def act(
    repository: Path, event: str, payload: dict[str, Any], server: GitHubServer, workflow: str
) -> ActRun:
    """On a runner that has answered the suite before, as one has where a gate ran before."""
    scores = {"ADAPTERBOT_CACHE": str(repository.parent / "scores")}
    return run_act(repository, event, payload, server.url, workflow=workflow, environ=scores)


def replies(server: GitHubServer) -> list[str]:
    comments = server.comments(example.REPOSITORY, example.NUMBER)
    return [comment.body for comment in comments if comment.author.endswith("[bot]")]


def test_help_is_a_reply_and_starts_nothing(server, repository):
    comment, run = say(server, repository, "/adapterbot help")
    assert run.jobs == {"answer": "success"}, run
    assert comment.reactions == ["eyes"]
    (reply,) = replies(server)
    assert "/adapterbot bisect [metric]" in reply


def test_who_may_not_push_is_told_so_and_starts_nothing(server, repository):
    comment, run = say(server, repository, "/adapterbot rerun", author="mallory")
    assert run.jobs == {"answer": "success"}, run
    assert comment.reactions == ["-1"]
    (reply,) = replies(server)
    assert "only people who may push" in reply


def test_rerun_judges_again_and_posts_from_a_job_of_its_own(server, repository):
    comment, run = say(server, repository, "/adapterbot rerun")
    assert comment.reactions == ["eyes"]
    assert "bisect" not in run.jobs, run
    assert run.step_exit_codes["gate/run"] == 3, run
    (verdict,) = replies(server)
    assert verdict.startswith("<!-- adapterbot:adapters-dates -->"), run
    assert "Regressed" in verdict
    assert example.FIRST_POISONED in verdict
    head = example.git(repository, "rev-parse", "HEAD")
    assert {check["head_sha"] for check in server.check_runs} == {head}
    assert {check["conclusion"] for check in server.check_runs} == {"failure"}


@pytest.mark.parametrize("metric", ["", "dates_us"])
def test_bisect_is_answered_in_a_comment_of_its_own(server, repository, metric):
    comment, run = say(server, repository, f"/adapterbot bisect {metric}".rstrip())
    assert comment.reactions == ["eyes"]
    assert run.step_exit_codes["bisect/run"] == 3, run
    assert run.jobs["reply"] == "failure", "a finding, as everywhere"
    (found,) = replies(server)
    assert found.startswith("<!-- adapterbot:adapters-dates@adapterbot bisect -->"), run
    assert example.FIRST_POISONED in found
    assert "dates_us" in found
    assert server.check_runs == []


def test_why_there_was_no_bisect_is_answered(server, repository):
    _, run = say(server, repository, "/adapterbot bisect date_us")
    assert run.step_exit_codes["bisect/run"] == 2, run
    (reply,) = replies(server)
    assert "the suite has no task" in reply, run
    assert "name one of" in reply


def check_run(repository: Path, name: str) -> dict[str, Any]:
    """The event of a button that was pressed beside a check of the pull request."""
    head = {"ref": "retrain-on-new-invoices", "sha": example.git(repository, "rev-parse", "HEAD")}
    base = {"ref": "main", "sha": example.git(repository, "rev-parse", "main")}
    pull = {"number": example.NUMBER, "head": head, "base": base}
    return {
        "action": "rerequested",
        "repository": {"full_name": example.REPOSITORY},
        "check_run": {"name": name, "head_sha": head["sha"], "pull_requests": [pull]},
    }


def test_the_button_beside_a_check_judges_again(server, repository):
    payload = check_run(repository, "adapterbot / adapters-dates")
    run = act(repository, "check_run", payload, server, APP_GATE)
    assert set(run.step_exit_codes.values()) == {3}, run
    (verdict,) = replies(server)
    assert "Regressed" in verdict
    names = {check["name"] for check in server.check_runs}
    assert names == {"adapterbot", "adapterbot / adapters-dates"}
    assert {check["status"] for check in server.check_runs} == {"completed"}


def test_the_button_beside_somebody_elses_check_is_not_ours(server, repository):
    payload = check_run(repository, "unit tests")
    run = act(repository, "check_run", payload, server, APP_GATE)
    assert run.results == {}, run
    assert server.requests == []
