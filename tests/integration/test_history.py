"""A gate that keeps a history: a push to the default branch adds to it, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterbot.commands import history
from adapterbot.config import HistoryConfig
from adapterbot.errors import InputError, OurFailure
from adapterbot.git.tree import GitTree
from adapterbot.judging.subjects import digest_at
from adapterbot.records import Report
from tests import command_line, example
from tests.github_server import GitHubServer
from tests.golden.reports import REPORTS
from tests.listening import listening

DATES = "adapters/dates"
CONFIG = """\
history: {branch: adapter-history}
adapters:
  - path: adapters/dates
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The example with a good retraining, a config on both branches, and an origin to push to."""
    made = example.build(tmp_path / "repository", "clean")
    example.git(made, "checkout", "-q", "main")
    (made / "adapterbot.yaml").write_text(CONFIG)
    example.commit(made, "configure")
    example.git(made, "checkout", "-q", "-")
    example.git(made, "merge", "-q", "--no-edit", "main")
    example.git(tmp_path, "clone", "-q", "--bare", str(made), "origin.git")
    example.git(made, "remote", "add", "origin", str(tmp_path / "origin.git"))
    return made


def push(repository: Path, ref: str = "refs/heads/main") -> dict[str, Any]:
    return {
        "ref": ref,
        "before": example.git(repository, "rev-parse", "main"),
        "after": example.git(repository, "rev-parse", "HEAD"),
        "repository": {"full_name": example.REPOSITORY, "default_branch": "main"},
    }


@pytest.fixture
def gate(repository: Path, tmp_path: Path, server: GitHubServer) -> Callable[..., Report]:
    def run(event: str, payload: dict[str, Any], **changes: str) -> Report:
        place = tmp_path / "runner"
        shutil.rmtree(place, ignore_errors=True)
        environment = {
            **os.environ,
            "ADAPTERBOT_CACHE": str(tmp_path / "scores"),
            **example.runner_environment(place, event, payload, server.url),
            **changes,
        }
        done = command_line.run("gate", cwd=repository, env=environment)
        assert done.returncode == 0, done.stderr
        report = place / "temp" / "adapterbot" / "report.json"
        return Report.model_validate_json(report.read_bytes())

    return run


def kept(repository: Path) -> list[dict[str, Any]]:
    """The results at the origin."""
    example.git(repository, "fetch", "-q", "origin")
    try:
        text = example.git(repository, "show", "origin/adapter-history:history.jsonl")
    except subprocess.CalledProcessError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def test_what_is_merged_makes_history_and_pull_requests_only_read_it(repository, gate, server):
    """A pull request of a fork, or of a branch, writes nothing, whatever its job's token may do."""
    fork = example.pull_request(repository, head_repository="evil/fork")
    (adapter,) = gate("pull_request", fork, RUNNER_ENVIRONMENT="github-hosted").adapters
    assert adapter.trends == ()
    gate("push", push(repository, "refs/heads/feature"))
    assert kept(repository) == []

    merged = push(repository)
    gate("push", merged)
    (result,) = kept(repository)
    assert (result["commit"], result["adapter"]) == (merged["after"], "adapters-dates")

    example.commit(repository, "another")
    (adapter,) = gate("pull_request", example.pull_request(repository)).adapters
    judged = [metric.delta.metric for metric in adapter.metrics]
    assert [trend.metric for trend in adapter.trends] == judged
    assert all(len(trend.points) == 1 for trend in adapter.trends)
    assert kept(repository) == [result]
    (comment,) = server.comments(example.REPOSITORY, example.NUMBER)
    assert "| Trend |" in comment.body

    shown = command_line.run("history", "--json", cwd=repository)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["results"] == [result]


def test_by_hand_a_report_is_added_to_the_commit_of_its_weights_alone(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    report = REPORTS["passed"]()
    (section,) = report.adapters
    measured = digest_at(GitTree(repository, example.git(repository, "rev-parse", "main")), DATES)
    candidate = section.candidate.model_copy(update={"digest": measured})
    section = section.model_copy(update={"adapter": DATES, "candidate": candidate})
    path = tmp_path / "report.json"
    path.write_text(report.model_copy(update={"adapters": (section,)}).model_dump_json())
    with pytest.raises(InputError, match="those at"):
        history.add(path, None, "HEAD", {})
    example.git(repository, "checkout", "-q", "main")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2099-01-01T00:00:00Z")
    example.commit(repository, "by a clock that is ahead")
    assert history.add(path, None, "HEAD", {}) == 1
    (result,) = kept(repository)
    assert result["time"] <= time.time()


@pytest.mark.parametrize("own", [True, False])
def test_attack_an_origin_that_is_not_githubs_is_not_shown_the_token(tmp_path: Path, own: bool):
    example.git(tmp_path, "init", "-q")
    example.git(tmp_path, "commit", "-q", "--allow-empty", "-m", "merged")
    commit = example.git(tmp_path, "rev-parse", "HEAD")
    report = REPORTS["passed"]()
    with listening() as (host, sent):
        example.git(tmp_path, "remote", "add", "origin", f"{host}/octo/adapters.git")
        environment = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_TOKEN": "t0ken",
            "GITHUB_SERVER_URL": host if own else "https://github.com",
        }
        with pytest.raises(OurFailure):
            history.keep(HistoryConfig(branch="kept"), tmp_path, report, commit, environment)
    assert sent
    assert bool(sent[0]) is own
