"""Soup's own `adapters pr` on the files that we read, and ours on what it writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import peers

ROOT = Path(__file__).parent.parent.parent
ADAPTER = ROOT / "examples" / "tiny" / "adapters" / "dates"
DELTAS = [
    {"metric": "judge_score", "baseline": 7.4, "candidate": 8.2},
    {"metric": "retry_rate", "baseline": 0.121, "candidate": 0.046},
]
SAMPLES = [{"prompt": "p", "baseline_output": "b", "candidate_output": "c"}]
GIVEN = [
    "pr", "Better politeness", "--base-sha", "9f2e" * 16, "--adapter", "candidate",
    "--eval", "eval.json", "--samples", "samples.json", "--dataset-diff", "diff.txt",
    "--format", "json",
]  # fmt: skip


@pytest.fixture(scope="session")
def soup() -> Path:
    made = peers.PLACE / "soup" / ".made"
    if not made.exists() and os.environ.get("CI") != "true":
        pytest.skip("Soup is not installed; CI=true installs it, as does `python -m bench pr`")
    return peers.soup() / "soup"


def written(folder: Path, *command: str | Path) -> Any:
    subprocess.run([*command, "--output", "out.json"], cwd=folder, check=True, capture_output=True)
    return json.loads((folder / "out.json").read_text("utf-8"))


def test_both_take_the_same_command_and_say_the_same(soup: Path, tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "candidate")
    (tmp_path / "eval.json").write_text(json.dumps(DELTAS))
    (tmp_path / "samples.json").write_text(json.dumps(SAMPLES))
    (tmp_path / "diff.txt").write_text("+ 1 row\n")
    ours = written(tmp_path, sys.executable, "-m", "adapterbot", *GIVEN)
    theirs = written(tmp_path, soup, "adapters", *GIVEN)
    for field in ("title", "base_sha", "dataset_diff", "samples"):
        assert ours[field] == theirs[field]
    for mine, other in zip(ours["deltas"], theirs["deltas"], strict=True):
        assert {name: mine[name] for name in other} == other
    # What Soup wrote is read by us, and the rows that we wrote are read by Soup.
    (tmp_path / "eval.json").write_text(json.dumps(theirs))
    again = written(tmp_path, sys.executable, "-m", "adapterbot", *GIVEN)
    assert [d["delta"] for d in again["deltas"]] == [d["delta"] for d in theirs["deltas"]]
    (tmp_path / "eval.json").write_text(json.dumps(ours["deltas"]))
    assert written(tmp_path, soup, "adapters", *GIVEN)["deltas"] == theirs["deltas"]
