"""What a judgement stands on: a rule that could never decide anything is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbot.changes.sides import Sides
from adapterbot.config import AdapterConfig, Config, MetricRule, Policy
from adapterbot.errors import InputError
from adapterbot.eval.suite import Suite, load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.judging import grounds
from adapterbot.judging.grounds import policies
from adapterbot.verdict import MetricPolicy

SUITE = """
version: 1
tasks:
  - {name: dates, data: rows.jsonl, scorer: exact, margin: 0.1%s}
  - {name: plain, data: rows.jsonl, scorer: exact, margin: 0.1, slice: []}
"""


def write_suite(folder: Path, more: str = "") -> None:
    rows = [{"prompt": f"p{i}", "expected": "e", "category": "eu" if i else "us"} for i in range(9)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "suite.yaml").write_text(SUITE % more)


def of(folder: Path, more: str, rule: str) -> dict[str, MetricPolicy]:
    write_suite(folder, more)
    suite = load_suite(WorkTree(folder), "suite.yaml")
    gated = Policy(metrics={rule: MetricRule(gated=True)})
    return policies(suite, AdapterConfig(path="one", key="one", policy=gated))


def test_a_slice_that_the_suite_has_can_be_gated(tmp_path: Path) -> None:
    assert of(tmp_path, "", "dates [us]")["dates [us]"] == MetricPolicy(True, 0.1)


@pytest.mark.parametrize(
    ("more", "rule", "fix"),
    [
        ("", "dates [uk]", "name one of dates [eu], dates [us]"),
        (", limit: 2", "dates [us]", "name one of dates [eu]"),
        ("", "plain [us]", "remove it; the task has no slices"),
    ],
)
def test_a_gated_slice_that_is_not_there_is_no_green_check(
    tmp_path: Path, more: str, rule: str, fix: str
) -> None:
    """Attack: a misspelt slice, or one that a sample limit cut away, was never compared, and the
    gate passed without it."""
    with pytest.raises(InputError, match="the suite has no such slice") as caught:
        of(tmp_path, more, rule)
    assert caught.value.field == f"policy.metrics.{rule}"
    assert caught.value.fix == fix


def test_an_adapter_that_nothing_lists_is_told_to_be_listed_with_its_suite(tmp_path: Path) -> None:
    """A first suite of its own is not what a repository lacks whose adapters have theirs."""
    tree = WorkTree(tmp_path)
    config = Config(adapters=(AdapterConfig(path="one", key="one", suite="suite.yaml"),))
    new = AdapterConfig(path="two", key="two")
    for listed, fix in ((config, "list the adapter with its suite"), (None, "merge an eval suite")):
        with pytest.raises(InputError, match="from the base branch only") as caught:
            grounds.suite(Sides(tree, tree, tree, listed), new, None, {})
        assert (caught.value.fix or "").startswith(fix)


def test_adapters_that_share_a_suite_have_its_data_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_suite(tmp_path)
    read: list[str] = []

    def noted(tree: WorkTree, path: str) -> Suite:
        read.append(path)
        return load_suite(tree, path)

    monkeypatch.setattr(grounds, "load_suite", noted)
    tree = WorkTree(tmp_path)
    known: dict[str, Suite] = {}
    where = Sides(tree, tree, tree, None)
    adapters = [AdapterConfig(path=name, key=name, suite="suite.yaml") for name in ("a", "b")]
    first, second = (grounds.suite(where, adapter, None, known) for adapter in adapters)
    assert first is second
    assert read == ["suite.yaml"]
