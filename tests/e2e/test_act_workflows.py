"""The ready workflows beside the gate's own, under a real runner engine: what a fork's run left is
posted by another workflow, and a comment is answered."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest

from adapterbot.records import Source
from tests import example
from tests.e2e.act import ROOT, run_act
from tests.golden.reports import REPORTS

EXAMPLES = ROOT / "docs" / "examples"
HEAD, BASE, FORK, RUN = "c" * 40, "a" * 40, "stranger/adapters", 4711


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose default branch holds nothing but our workflows."""
    folder = tmp_path / "adapters"
    (folder / ".github" / "workflows").mkdir(parents=True)
    for workflow in EXAMPLES.glob("adapter-*.yml"):
        shutil.copy(workflow, folder / ".github" / "workflows")
    example.git(folder.parent, "init", "--quiet", "--initial-branch=main", folder.name)
    example.commit(folder, "adapterbot")
    return folder


def test_a_forks_report_is_posted_by_a_workflow_that_checks_nothing_out(repository, server):
    pull = {"head_sha": HEAD, "head_repository": FORK, "head_ref": "better"}
    server.add_pull(example.REPOSITORY, example.NUMBER, **pull)
    source = Source(
        repository=example.REPOSITORY,
        pull_request=example.NUMBER,
        head_sha=HEAD,
        run_url=f"https://github.com/{example.REPOSITORY}/actions/runs/{RUN}",
    )
    report = REPORTS["regressed"]().model_copy(update={"source": source})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("report.json", report.model_dump_json())
    server.world.add_artifact(example.REPOSITORY, RUN, "adapterbot-report", packed.getvalue())
    payload = {
        "action": "completed",
        "repository": {"full_name": example.REPOSITORY},
        "workflow_run": {
            "id": RUN,
            "run_attempt": 1,
            "event": "pull_request",
            "head_sha": HEAD,
            "head_branch": "better",
            "head_repository": {"full_name": FORK},
        },
    }
    run = run_act(repository, "workflow_run", payload, server.url, workflow="adapter-publish.yml")
    assert set(run.step_exit_codes.values()) == {3}, run
    (comment,) = server.comments(example.REPOSITORY, example.NUMBER)
    assert "Regressed" in comment.body
    assert {check["conclusion"] for check in server.check_runs} == {"failure"}


@pytest.mark.parametrize(("level", "asked"), [("write", "bisect"), ("read", "")])
def test_a_comment_is_answered(repository, server, level, asked):
    server.add_pull(example.REPOSITORY, example.NUMBER, head_sha=HEAD, base_sha=BASE)
    server.world.permissions[example.REPOSITORY, "alice"] = level
    text = "/adapterbot bisect dates_us\n\n`$(touch owned)`"
    comment = server.add_comment(example.REPOSITORY, example.NUMBER, text, author="alice")
    payload = {
        "action": "created",
        "repository": {"full_name": example.REPOSITORY},
        "issue": {"number": example.NUMBER, "pull_request": {"url": "https://x"}},
        "comment": {"id": comment.id, "body": text, "user": {"login": "alice"}},
    }
    run = run_act(
        repository,
        "issue_comment",
        payload,
        server.url,
        workflow="adapter-commands.yml",
        job="answer",
    )
    assert run.jobs == {"answer": "success"}, run
    outputs = run.outputs["answer"]
    assert outputs.get("asked", "") == asked, json.dumps(outputs)
    if asked:
        assert (outputs["metric"], outputs["head-sha"]) == ("dates_us", HEAD)
        assert comment.reactions == ["eyes"]
    else:
        assert comment.reactions == ["-1"]
