"""The ready merge workflow under a real runner engine: it searches, gates the result against the
best parent, and proposes it as an App."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import example
from tests.e2e.act import ROOT, run_act
from tests.example import EXAMPLE
from tests.github_app import PROPOSING, with_app
from tests.github_server import GitHubServer

WORKFLOW = ROOT / "docs" / "examples" / "adapter-merge.yml"
SPECIALISTS = ("dates_eu", "dates_us", "dates_iso")
ROWS = 12


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three specialists, a suite that no one of them passes, and the workflow.

    Its environment is the one that runs this test, by a link: no run downloads torch.
    """
    folder = tmp_path / "adapters"
    (folder / ".github" / "workflows").mkdir(parents=True)
    text = WORKFLOW.read_text()
    installing = [
        step["run"]
        for job in yaml.safe_load(text)["jobs"].values()
        for step in job["steps"]
        if step.get("name") == "install"
    ]
    assert len(installing) == 2
    indented = [run.rstrip("\n").replace("\n", "\n" + " " * 10) for run in installing]
    for run in indented:
        assert run in text
        text = text.replace(run, f'ln -sfn "{sys.prefix}" "$RUNNER_TEMP/venv"')
    # No candidate is better than one of the first, which a search goes on from for all its budget.
    budget = '--budget "$BUDGET"'
    assert budget in text
    text = text.replace(budget, f"{budget} --generations 3")
    (folder / ".github" / "workflows" / WORKFLOW.name).write_text(text)
    shutil.copytree(EXAMPLE / "base", folder / "base")
    (folder / "data").mkdir()
    for name in ("soup.yaml", "soup.lock", "data/train.jsonl"):
        shutil.copy(EXAMPLE / name, folder / name)
    for name in SPECIALISTS:
        shutil.copytree(EXAMPLE / "experts" / name, folder / "adapters" / name)
    suite = yaml.safe_load((EXAMPLE / "evals" / "suite.yaml").read_text())
    (folder / "evals").mkdir()
    for task in suite["tasks"]:
        rows = (EXAMPLE / "evals" / task["data"]).read_text().splitlines()[:ROWS]
        (folder / "evals" / task["data"]).write_text("\n".join(rows) + "\n")
    (folder / "evals" / "suite.yaml").write_text(yaml.safe_dump(suite))
    example.git(folder.parent, "init", "--quiet", "--initial-branch=main", folder.name)
    example.commit(folder, "three specialists")
    return folder


def test_a_merge_is_searched_gated_and_proposed(
    repository: Path, server: GitHubServer, tmp_path: Path
) -> None:
    bare = tmp_path / "acme" / "adapters.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository, bare], check=True)
    server.add_repository(example.REPOSITORY, bare)
    payload = {"ref": "refs/heads/main", "repository": {"full_name": example.REPOSITORY}}
    inputs = {
        "adapters": " ".join(f"adapters/{name}" for name in SPECIALISTS),
        "suite": "evals/suite.yaml",
        "output": "adapters/merged",
        "budget": "60s",
    }
    run = run_act(
        repository,
        "workflow_dispatch",
        payload,
        server.url,
        inputs,
        workflow=WORKFLOW.name,
        app=with_app(
            server, login="merger[bot]", permissions=PROPOSING, repository=example.REPOSITORY
        ),
    )
    assert run.jobs == {"merge": "success", "propose": "success"}, str(run)
    (pull,) = server.world.pulls.values()
    assert pull.title == f"Merge of {inputs['adapters']}"
    shown = subprocess.run(
        ["git", "show", f"{pull.head_ref}:adapters/merged/merge.json"],
        cwd=bare, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    record = json.loads(shown)
    finalists = {row["name"]: row for row in record["search"]["finalists"]}
    assert Path(record["search"]["best_parent"]).name in SPECIALISTS
    best = max(finalists[name]["report"] for name in SPECIALISTS)
    assert finalists[record["search"]["winner"]]["report"] > best
    assert "dates_us" in pull.body
    assert pull.author == "merger[bot]", "what `github.token` opens, no gate would judge"
