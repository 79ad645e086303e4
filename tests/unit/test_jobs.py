"""Which jobs of a repository's workflows judge pull requests with our action."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbot.jobs import FOLDER, jobs

USES = "uses: acme/adapter-action@v1"


@pytest.mark.parametrize(
    ("on", "step", "gates"),
    [
        ("pull_request", f"{{{USES}}}", True),
        ("[push, pull_request]", f"{{{USES}, with: {{command: gate}}}}", True),
        ("{pull_request: {types: [labeled]}}", f"{{{USES}, with: {{suite: a.yaml}}}}", True),
        ("pull_request", f"{{{USES}, with: {{command: bisect}}}}", False),
        ("pull_request", f"{{{USES}, with: {{command: [gate]}}}}", False),
        ("workflow_run", f"{{{USES}, with: {{command: publish}}}}", False),
        ("workflow_dispatch", f"{{{USES}}}", False),
        ("pull_request_target", f"{{{USES}}}", False),
        ("pull_request", "{uses: acme/other@v1}", None),
        ("pull_request", "[1]", None),
    ],
)
def test_a_gate_is_known_by_its_event_and_its_command(
    tmp_path: Path, on: str, step: str, gates: bool | None
) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        f"on: {on}\njobs: {{judge: {{runs-on: x, steps: [{{run: ls}}, {step}]}}}}\n"
    )
    (folder / "broken.yml").write_text("jobs: [\n")
    (folder / "folder.yml").mkdir()
    found = [(job.workflow, job.name, job.labels, job.gates) for job in jobs(tmp_path)]
    assert found == ([] if gates is None else [("own.yaml", "judge", ("x",), gates)])


def test_a_gate_is_known_where_our_workflow_is_called(tmp_path: Path) -> None:
    """A second one would write over its comment and check."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name in ("gate", "bisect"):
        uses = f"acme/adapter-action/{FOLDER}/adapter-{name}.yml@v1"
        (folder / f"{name}.yml").write_text(f"on: pull_request\njobs: {{j: {{uses: {uses}}}}}\n")
    assert [job.workflow for job in jobs(tmp_path) if job.gates] == ["gate.yml"]
