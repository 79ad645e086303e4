"""What is generated from the code cannot drift from it: README, docs, pictures, schemas."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from adapterbot.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMMAND = typer.main.get_command(app)


@pytest.mark.parametrize(
    "script", ["scripts.readme", "scripts.schemas", "scripts.pages", "scripts.statistics_figures"]
)
def test_generated_files_are_up_to_date(script: str) -> None:
    subprocess.run([sys.executable, "-m", script, "--check"], cwd=ROOT, check=True)


def options(words: list[str]) -> set[str]:
    """The options of the command that a line begins with; of a group, those of all its commands."""
    command = COMMAND
    for word in words:
        command = getattr(command, "commands", {}).get(word) or command
    commands = [command, *getattr(command, "commands", {}).values()]
    named = (parameter for one in commands for parameter in one.params)
    return {"--help", *(name for one in named for name in (*one.opts, *one.secondary_opts))}


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_options_in_running_text_are_options_of_their_command(page: Path) -> None:
    """What stands in blocks is run as it stands; this is for what stands between them."""
    for inline in re.findall(r"`adapterbot ([a-z][^`]*)`", page.read_text()):
        words = inline.split()
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= options(words) | {"--log-format"}, inline


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
