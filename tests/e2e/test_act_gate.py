"""A user's repository, the workflow of the README, the real runner engine, and a GitHub that holds
every request to its own description: the whole story of one adapter pull request."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import example
from tests.e2e.act import ROOT, run_act
from tests.github_server import GitHubServer

WORKFLOWS = (ROOT / "docs" / "examples" / "adapter-gate.yml",)
BISECT = ROOT / ".github" / "workflows" / "adapter-bisect.yml"


@pytest.fixture
def server(server: GitHubServer) -> GitHubServer:
    server.add_pull(example.REPOSITORY, example.NUMBER)
    return server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The example as a team would keep it, with our workflows, on a poisoned branch."""
    folder = example.build(tmp_path / "adapters")
    with example.on_main(folder):
        (folder / ".github" / "workflows").mkdir(parents=True)
        for workflow in (*WORKFLOWS, BISECT):
            shutil.copy(workflow, folder / ".github" / "workflows")
    example.git(folder, "rebase", "-q", "main")
    return folder


def test_the_story_of_one_pull_request(repository: Path, server: GitHubServer) -> None:
    opened = run_act(
        repository, "pull_request", example.pull_request(repository, "opened"), server.url
    )
    assert opened.jobs == {"gate": "failure"}, opened
    assert set(opened.step_exit_codes.values()) == {3}, opened
    (first,) = server.comments(example.REPOSITORY, example.NUMBER)
    assert "| Metric | Verdict | Δ |" in first.body
    assert "Regressed" in first.body
    assert example.FIRST_POISONED in first.body
    assert example.FIRST_POISONED in opened.summary
    notes = [note for check in server.check_runs for note in check["annotations"]]
    assert any(n["annotation_level"] == "failure" and "dates_us" in n["message"] for n in notes)
    assert opened.annotations == (), "said once: by the check"

    example.retrain(repository, "clean")
    fixed = run_act(
        repository, "pull_request", example.pull_request(repository, "synchronize"), server.url
    )
    assert fixed.jobs == {"gate": "success"}, fixed
    (second,) = server.comments(example.REPOSITORY, example.NUMBER)
    assert second.id == first.id
    assert "Passed" in second.body
    assert "Regressed" not in second.body
    assert len(server.sent("POST", r"/comments$")) == 1


def test_a_bisect_started_from_the_actions_tab(repository: Path, server: GitHubServer) -> None:
    """In a folder with a space in its name: the input is one path, as it is for the gate."""
    (repository / "checkpoints").rename(repository / "training runs")
    example.commit(repository, "rename")
    run = run_act(
        repository,
        "workflow_dispatch",
        {"repository": {"full_name": example.REPOSITORY}},
        server.url,
        {"adapter": "adapters/dates", "checkpoints": "training runs/*", "metric": "dates_us"},
        workflow=BISECT.name,
    )
    assert run.step_exit_codes["bisect/run"] == 3, run
    assert run.outputs["bisect"]["first-bad-checkpoint"] == example.FIRST_POISONED, run
    assert example.FIRST_POISONED in run.summary


def test_a_pickle_instead_of_weights_is_one_clear_line_and_a_comment(
    repository: Path, server: GitHubServer
) -> None:
    # The attack: weights that run code when they are loaded.
    (repository / example.demo.ADAPTER / "adapter_model.safetensors").write_bytes(b"\x80\x04K\x01.")
    example.commit(repository, "trust me")
    run = run_act(repository, "pull_request", example.pull_request(repository), server.url)
    assert set(run.step_exit_codes.values()) == {2}, run
    (comment,) = server.comments(example.REPOSITORY, example.NUMBER)
    assert "could not" in comment.body.lower()
    assert "Traceback" not in run.log
