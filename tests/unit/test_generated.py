"""What is generated from the code cannot drift from it: README, docs, pictures, schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "script", ["scripts.readme", "scripts.schemas", "scripts.pages", "scripts.statistics_figures"]
)
def test_generated_files_are_up_to_date(script: str) -> None:
    subprocess.run([sys.executable, "-m", script, "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["regressed", "hostile", "bad_input", "lower_is_better"])
def test_real_reports_satisfy_the_published_schema(name: str) -> None:
    schema = json.loads((ROOT / "docs" / "schemas" / "report-v1.schema.json").read_text())
    report = json.loads((ROOT / "tests" / "golden" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)


def test_the_workflow_of_the_readme_is_fifteen_lines() -> None:
    text = (ROOT / "docs" / "examples" / "adapter-gate.yml").read_text()
    assert len(text.splitlines()) <= 15
    assert text.strip() in (ROOT / "README.md").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    needed = {"contents": "read", "pull-requests": "write", "checks": "write"}
    assert workflow["jobs"]["gate"]["permissions"] == needed
