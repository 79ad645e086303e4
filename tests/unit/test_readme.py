"""The README's examples are real: its YAML loads as what it says it is."""

from __future__ import annotations

import re
from pathlib import Path

from adapterbot.config import load
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.lock import load_training

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
_BLOCK = re.compile(r"```yaml\n((?:# evals|# soup|adapters:).*?)```", re.DOTALL)
SUITE, SOUP, CONFIG = _BLOCK.findall(README)


def test_the_suite_loads(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "suite.yaml").write_text(SUITE)
    (tmp_path / "evals" / "dates_us.jsonl").write_text('{"prompt": "a", "expected": "b"}\n')
    (task,) = load_suite(WorkTree(tmp_path), "evals/suite.yaml").tasks
    assert (task.name, task.scorer, task.margin) == ("dates_us", "exact", 0.05)
    assert task.generation.stop == ("\n",)


def test_the_training_config_loads(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_text(SOUP)
    training = load_training(WorkTree(tmp_path), "soup.yaml")
    assert training.base == "./base"
    assert [entry.text for entry in training.entries] == ["./data/train.jsonl"]


def test_the_config_loads() -> None:
    (adapter,) = load(CONFIG.encode(), "adapterbot.yaml").adapters
    assert adapter.key == "adapters-dates"
    assert adapter.policy.metrics["dates_us"].margin == 0.02
