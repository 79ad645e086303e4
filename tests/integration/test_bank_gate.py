"""A pull request that changes a bank: the users it changes, each before and after, in one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from adapterbot import delta
from adapterbot.bank.codec import Rows, plain
from adapterbot.bank.portable import Portable, read_portable, write_portable
from adapterbot.bank.writer import BankWriter, create
from adapterbot.changes.sides import Sides
from adapterbot.commands.gate import GateOptions
from adapterbot.commands.gate import run as gate
from adapterbot.config import AdapterConfig
from adapterbot.errors import InputError
from adapterbot.files.tree import WorkTree
from adapterbot.judging import tenants
from adapterbot.records import (
    AdapterRef,
    AdapterReport,
    Direction,
    Outcome,
    SampleScore,
    ScoreKind,
    Standing,
    TaskResult,
)
from adapterbot.verdict import MetricPolicy, judge
from tests import example
from tests.bank_worlds import vera_bank

BANK = "banks/users.safetensors"
CONFIG = f"""version: 1
adapters:
  - path: {BANK}
    suite: evals/small.yaml
    policy: {{on_drift: warn}}
"""
SUITE = """version: 1
tasks:
  - name: prose
    data: small.jsonl
    scorer: bits_per_byte
    margin: 0.2
    least_effect: 0.05
"""


def changed(bank: BankWriter, user: str, factor: float, seed: int = 7) -> None:
    size = bank.manifest.floats
    row = np.random.default_rng(seed).normal(size=(1, size)) * factor
    bank.add([user], plain(row), replace=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On main a bank of four users; on the branch two are changed, one is new and one has gone."""
    root = tmp_path_factory.mktemp("bank-gate")
    repo = example.build(root / "repository", "clean")
    bank = vera_bank(repo / "base", root / "bank", 4, scale=0.01)
    example.git(repo, "checkout", "-q", "main")
    (repo / "banks").mkdir()
    # The base knows nothing but dates, and is so sure of them that noise does better on prose.
    changed(bank, "u1", 3.0)
    write_portable(bank, repo / BANK)
    (repo / "adapterbot.yaml").write_text(CONFIG)
    (repo / "evals" / "small.yaml").write_text(SUITE)
    rows = [
        {"prompt": f"Line {n}: ", "expected": f"the date of day {n} is known"} for n in range(12)
    ]
    (repo / "evals" / "small.jsonl").write_text("\n".join(map(json.dumps, rows)))
    example.commit(repo, "a bank of users")
    example.git(repo, "checkout", "-q", "-b", "retrain-users")
    changed(bank, "u1", 0.01)
    changed(bank, "u2", 0.011)
    changed(bank, "new", 0.01)
    bank.remove(["u3"])
    write_portable(bank, repo / BANK)
    bank.close()
    example.commit(repo, "retrained")
    return repo


@pytest.fixture
def judged(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[AdapterReport, str]:
    monkeypatch.chdir(repository)
    environment = {"ADAPTERBOT_CACHE": str(tmp_path / "scores")}
    written = gate(
        GateOptions(base="main", head="retrain-users", device="cpu", out=tmp_path / "out"),
        environment,
    )
    (report,) = written.report.adapters
    return report, (tmp_path / "out").joinpath("comment.md").read_text()


def test_each_changed_user_is_a_row_of_one_table(judged: tuple[AdapterReport, str]) -> None:
    report, comment = judged
    assert report.problem is None, report.problem
    found = {metric.delta.task: metric for metric in report.metrics}
    # u0 is as it was, and u3 has gone: neither is asked anything.
    assert set(found) == {"prose · new", "prose · u1", "prose · u2"}
    assert found["prose · u1"].standing is Standing.REGRESSED
    assert found["prose · u2"].standing is not Standing.REGRESSED
    assert report.verdict.outcome is Outcome.REGRESSED
    assert any("3 of 4 users changed, 1 of them new" in note for note in report.notes)
    assert any("1 user is removed" in note for note in report.notes)
    for name in found:
        assert name.split(" · ")[1] in comment


def test_the_sample_is_the_base_branchs_choice() -> None:
    users = [f"user {n}" for n in range(500)]
    chosen = tenants.sample(users, "seed")
    assert len(chosen) == tenants.MOST
    assert chosen == tenants.sample(list(reversed(users)), "seed")
    assert chosen != tenants.sample(users, "another")


def test_names_that_are_cut_stay_apart() -> None:
    one, other = ("x" * 200 + end for end in "ab")
    assert tenants.metric("task", one) != tenants.metric("task", other)
    assert tenants.metric(one[5:], "u") != tenants.metric(other[5:], "u")
    assert len(tenants.metric("t" * 200, one)) <= 200


def test_a_rule_for_a_slice_is_that_of_every_users_slice() -> None:
    sample = SampleScore(sample_id="s", score=1.0, slice="hard")
    result = TaskResult(
        task=tenants.metric("prose", "u1"),
        scorer="exact",
        direction=Direction.HIGHER,
        kind=ScoreKind.BINARY,
        samples=tuple(sample.model_copy(update={"sample_id": f"s{i}"}) for i in range(20)),
    )
    ref = AdapterRef(label="bank")
    change = tenants.Change(None, cast("Portable", None), ("u1",), ref, ref, ())
    rules = {"prose": MetricPolicy(True, 0.1), "prose [hard]": MetricPolicy(True, 0.3)}
    metrics, _ = judge(delta.compare_all([result], [result]), change.policies(rules, {"prose"}))
    assert [(m.delta.slice, m.margin, m.gated) for m in metrics] == [
        (None, 0.1, True),
        ("hard", 0.3, True),
    ]


def test_a_bracket_in_a_tasks_own_name_is_no_slice() -> None:
    ref = AdapterRef(label="bank")
    change = tenants.Change(None, cast("Portable", None), ("u1",), ref, ref, ())
    rules = {"prose": MetricPolicy(True, 0.1), "prose [long]": MetricPolicy(True, 0.3)}
    found = change.policies(rules, {"prose", "prose [long]"})
    assert found[tenants.metric("prose [long]", "u1")].margin == 0.3
    assert found[tenants.metric("prose", "u1")].margin == 0.1


def test_no_user_can_call_himself_a_slice_of_another() -> None:
    rules = {"prose": MetricPolicy(True, 0.1), "prose [hard]": MetricPolicy(False, 0.3)}
    ref = AdapterRef(label="bank")
    change = tenants.Change(None, cast("Portable", None), ("u1", "u1 [hard]"), ref, ref, ())
    assert len(change.policies(rules, {"prose"})) == 4


def test_who_changed_does_not_depend_on_how_rows_are_kept(repository: Path, tmp_path: Path) -> None:
    """The same numbers in another dtype are the same users; another rank makes all others."""
    portable = read_portable(repository / BANK)
    manifest = portable.manifest.model_copy(update={"dtype": "bf16"})
    coarse = Rows(np.round(portable.rows([0, 1]).values * 64) / 64, portable.rows([0, 1]).choices)
    files = []
    for dtype in ("fp32", "bf16"):
        kept = manifest.model_copy(update={"dtype": dtype})
        with create(tmp_path / dtype, kept) as bank:
            bank.add(["a", "b"], coarse)
            if dtype == "bf16":
                bank.add(["b"], Rows(coarse.values[1:] * 2, coarse.choices[1:]), replace=True)
            write_portable(bank, tmp_path / f"{dtype}.safetensors")
        files.append(read_portable(tmp_path / f"{dtype}.safetensors"))
    assert tenants.changed_users(files[0], files[1]) == ["b"]
    assert tenants.changed_users(None, files[1]) == ["a", "b"]
    assert tenants.changed_users(portable, files[1]) == ["a", "b"]


def test_a_bank_is_judged_over_its_own_base_or_over_one_whose_name_says_nothing(
    repository: Path, tmp_path: Path
) -> None:
    portable = read_portable(repository / BANK)
    manifest = portable.manifest.model_copy(update={"base_model": "org/one"})
    with create(tmp_path / "bank", manifest) as bank:
        bank.add(list(portable.users), portable.rows(range(len(portable.users))))
        write_portable(bank, tmp_path / "users.safetensors")
    tree = WorkTree(tmp_path)
    where = Sides(tree, tree, tree, None)
    adapter = AdapterConfig(key="users", path="users.safetensors")
    for base in ("org/one", "Org/One", "gpt2", repository / "base", "/nowhere/two"):
        assert len(tenants.change(where, adapter, base).after.users) == len(portable.users)
    with pytest.raises(InputError, match="is of 'org/one', but the base model is 'org/two'"):
        tenants.change(where, adapter, "org/two")


@pytest.mark.parametrize("attack", ["nan", "pickle", "cut", "huge"])
def test_a_strangers_bank_is_not_judged_and_says_why(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    repo = example.copy(repository, tmp_path / "copy")
    file = repo / BANK
    if attack == "nan":
        row = read_portable(file).raw[2].tobytes()
        assert row in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(row[:64], b"\xff" * 64))
    elif attack == "pickle":
        file.write_bytes(b"\x80\x04" + file.read_bytes())
    elif attack == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:  # a few bytes that ask for a projection of terabytes
        raw = file.read_bytes()
        old = b'\\"rank\\": 8'
        assert old in raw
        text = raw.replace(old, b'\\"rank\\":9999999')
        grown = int.from_bytes(raw[:8], "little") + len(text) - len(raw)
        file.write_bytes(grown.to_bytes(8, "little") + text[8:])
    example.commit(repo, attack)
    monkeypatch.chdir(repo)
    environment = {"ADAPTERBOT_CACHE": str(tmp_path / "scores")}
    written = gate(
        GateOptions(base="main", head="HEAD", device="cpu", out=tmp_path / "out"), environment
    )
    (report,) = written.report.adapters
    assert report.problem is not None
    assert report.problem.kind == "bad_input"
    assert report.verdict.outcome is Outcome.NOT_JUDGED
    shutil.rmtree(repo)
