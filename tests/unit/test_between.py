"""What changed from the last good checkpoint to the first bad one: rows, weights, answers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapterbot.bisect import Archive, Checkpoint
from adapterbot.config import ArchiveData
from adapterbot.errors import InputError
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.git.tree import GitTree
from adapterbot.lock.rows import dataset_diff
from adapterbot.probing.archive_data import EXAMPLES, files_between
from adapterbot.probing.between import Asked, what_changed
from adapterbot.probing.search import find_break
from adapterbot.probing.training_run import TrainingRun
from adapterbot.records import (
    BisectResult,
    BisectVerdict,
    DatasetDiff,
    Direction,
    SampleScore,
    ScoreKind,
    Suspicion,
    TaskResult,
)
from adapterbot.weights.adapter import load_adapter
from adapterbot.weights.inspection import layer_changes
from tests import example

POISONED = example.EXAMPLE / "history" / "poisoned"


def at(step: int) -> Checkpoint:
    return Checkpoint(path=f"run/checkpoint-{step}", label=f"checkpoint-{step}", step=step)


def rows_between(tree: Tree, data: ArchiveData, good: Checkpoint, bad: Checkpoint) -> DatasetDiff:
    return dataset_diff(*files_between(tree, data, good, bad), examples=EXAMPLES)


def write(root: Path, rows: dict[str, list[str]]) -> WorkTree:
    for name, lines in rows.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f'{{"text": "{line}"}}\n' for line in lines))
    return WorkTree(root)


# ---------------------------------------------------------------- rows


def test_files_that_hold_all_rows_are_compared_with_each_other(tmp_path: Path) -> None:
    tree = write(
        tmp_path,
        {
            "data/0100.jsonl": ["a", "b", "c"],
            "data/0200.jsonl": ["a", "c", "d", "e"],
            "data/0300.jsonl": [],
        },
    )
    found = rows_between(tree, ArchiveData(files="data/{step}.jsonl"), at(100), at(200))
    assert found.summary == "+2 rows, −1 row"


def test_files_that_hold_what_came_add_up_over_the_steps_between(tmp_path: Path) -> None:
    tree = write(
        tmp_path,
        {
            "d/step-5.jsonl": ["x"],
            "d/step-10.jsonl": ["a"],
            "d/step-0015.jsonl": ["b"],
            "d/step-20/one.jsonl": ["c"],
            "d/step-20/two.jsonl": ["d"],
            "d/step-25.jsonl": ["e"],
            "d/notes-15.txt": ["not of the pattern"],
        },
    )
    data = ArchiveData(files="d/step-{step}*", holds="added")
    found = rows_between(tree, data, at(10), at(20))
    assert found.summary == "+3 rows"
    assert {row.after for row in found.added_rows} == {f'{{"text": "{c}"}}' for c in "bcd"}
    assert rows_between(tree, data, at(20), at(24)).summary == "the same rows"


def test_the_step_is_the_last_number_of_a_name_where_the_trainer_wrote_none(tmp_path: Path) -> None:
    tree = write(tmp_path, {"1.jsonl": ["a"], "2.jsonl": ["b", "a"]})
    good, bad = (Checkpoint(path=f"v3/run-0{n}", label=f"run-0{n}") for n in (1, 2))
    assert rows_between(tree, ArchiveData(files="{step}.jsonl"), good, bad).summary == "+1 row"
    nameless = Checkpoint(path="v3/final", label="final")
    with pytest.raises(InputError, match="has no step"):
        rows_between(tree, ArchiveData(files="{step}.jsonl"), good, nameless)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ("none/{step}.jsonl", "none/{step}.jsonl: archive_data.files: matches no file in"),
        ("d/{step}.jsonl", "matches no file of step 20"),
        ("../{step}.jsonl", "leaves the repository"),
        ("/etc/{step}", "path is absolute"),
        ("d/{step}.bin", "is not a file whose rows we read"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path: Path, files: str, says: str) -> None:
    tree = write(tmp_path, {"d/10.jsonl": ["a"], "d/10.bin": ["a"], "d/20.bin": ["b"]})
    with pytest.raises(InputError) as caught:
        rows_between(tree, ArchiveData(files=files), at(10), at(20))
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["working tree", "commit"])
def test_attack_a_link_out_of_the_tree_is_refused(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"key": "hunter2"}\n')
    root = tmp_path / "repository"
    write(root, {"d/10.jsonl": ["a"]})
    (root / "d" / "20.jsonl").symlink_to(secret)
    tree: Tree = WorkTree(root)
    if kind == "commit":
        example.git(root, "init", "-q")
        example.commit(root)
        tree = GitTree(root, example.git(root, "rev-parse", "HEAD"))
    with pytest.raises(InputError, match="is a symbolic link"):
        rows_between(tree, ArchiveData(files="d/{step}.jsonl"), at(10), at(20))


def test_in_a_git_history_it_is_the_data_of_the_commits(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    write(root, {"project/data/a.jsonl": ["a", "b"], "project/data/b.jsonl": ["c"]})
    (root / "project" / "soup.yaml").write_text("base: x\ndata:\n  train: data/*.jsonl\n")
    example.git(root, "init", "-q")
    for step in range(3):
        # With times of its own, or Git takes a file of the same size for the one before.
        shutil.copytree(
            POISONED / f"checkpoint-04{4 * step}0",
            root / "adapter",
            copy_function=shutil.copyfile,
        )
        if step == 1:
            write(root, {"project/data/a.jsonl": ["a", "z"], "project/data/c.jsonl": ["d", "e"]})
        example.commit(root)
        shutil.rmtree(root / "adapter")
    example.git(root, "checkout", "-q", ".")
    archive = Archive(WorkTree(root), tmp_path)
    checkpoints = archive.find(["git:adapter"])
    labels = [checkpoint.label for checkpoint in checkpoints]
    assert len(labels) == 3
    found = [
        what_changed(
            TrainingRun(archive, checkpoints, "project/soup.yaml"),
            broken(later, later - 1, labels),
            Asked([], {}),
        )
        for later in (1, 2)
    ]
    assert [one and one.data and one.data.summary for one in found] == [
        "+2 rows, 1 changed",
        "the same rows",
    ]
    assert all(one and one.layers and not one.notes for one in found)


# ---------------------------------------------------------------- weights


def test_layers_are_as_far_apart_as_their_dense_updates() -> None:
    a, b = (load_adapter(POISONED / f"checkpoint-{step}") for step in ("0400", "0440"))
    found = {change.layer: change for change in layer_changes(a, b)}
    assert set(found) == {f"layer {n}" for n in range(4)}
    for layer, change in found.items():
        mine = [m for m in a.updates if f".{layer.removeprefix('layer ')}." in m]
        left, right = (
            torch.cat([one.delta_weight(m).double().flatten() for m in mine]) for one in (a, b)
        )
        assert change.good == pytest.approx(float(left.norm()), rel=1e-6)
        assert change.bad == pytest.approx(float(right.norm()), rel=1e-6)
        assert change.distance == pytest.approx(float((right - left).norm()), rel=1e-5)
    distances = [change.distance for change in layer_changes(a, b)]
    assert distances == sorted(distances, reverse=True)
    assert all(change.distance == 0.0 for change in layer_changes(a, a))


# ---------------------------------------------------------------- all of it


def result(scores: dict[str, float]) -> TaskResult:
    return TaskResult(
        task="t",
        scorer="exact",
        direction=Direction.HIGHER,
        kind=ScoreKind.BINARY,
        samples=tuple(
            SampleScore(sample_id=name, score=score, output=str(score))
            for name, score in scores.items()
        ),
    )


def broken(first: int, good: int, labels: list[str]) -> BisectResult:
    return BisectResult(
        verdict=BisectVerdict.BROKEN_AT,
        checkpoints=len(labels),
        first_broken=labels[first],
        last_good=labels[good],
        suspicions=(Suspicion(index=first, label=labels[first], probability=0.99),),
    )


def test_only_what_got_worse_there_counts_and_what_fails_is_a_note(tmp_path: Path) -> None:
    checkpoints = [at(step) for step in (10, 20, 30)]
    asked = Asked(
        good=[result({"a": 1, "b": 1, "c": 0, "d": 1, "e": 1})],
        answers={
            1: [result({"d": 0})],
            2: [result({"a": 0, "b": 1}), result({"b": 1, "c": 1, "d": 0})],
        },
    )
    archive = Archive(WorkTree(tmp_path), tmp_path)
    run = TrainingRun(archive, checkpoints, "soup.yaml", ArchiveData(files="{step}.jsonl"))
    found = what_changed(run, broken(2, 1, [c.label for c in checkpoints]), asked)
    assert found
    # b stayed right, c got better, and d was wrong one checkpoint earlier already.
    assert [sample.sample_id for sample in found.worse] == ["a"]
    assert (found.samples_worse, found.samples_asked) == (1, 4)
    assert found.data is None
    assert not found.layers
    assert ["matches no file" in note for note in found.notes] == [True, False]
    assert "run/checkpoint-20" in found.notes[1]


def test_nothing_is_told_where_no_good_checkpoint_comes_before(tmp_path: Path) -> None:
    archive = Archive(WorkTree(tmp_path), tmp_path)
    asked = Asked([], {})
    oldest = BisectResult(
        verdict=BisectVerdict.BROKEN_AT,
        checkpoints=2,
        first_broken="a",
        suspicions=(Suspicion(index=0, label="a", probability=1.0),),
    )
    checkpoints = [Checkpoint(path=name, label=name) for name in "ab"]
    run = TrainingRun(archive, checkpoints, "soup.yaml")
    for found in (oldest, BisectResult(verdict=BisectVerdict.ALL_OK, checkpoints=2)):
        assert what_changed(run, found, asked) is None


def test_weights_that_diverged_are_a_note_and_no_figure(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for index, step in enumerate(("0400", "0440")):
        target = example.copy(POISONED / f"checkpoint-{step}", tmp_path / f"run-{index}")
        if index:
            weights = load_file(target / "adapter_model.safetensors")
            next(iter(weights.values())).view(-1)[0] = np.nan
            save_file(weights, target / "adapter_model.safetensors")
    checkpoints = [Checkpoint(path=f"run-{i}", label=f"run-{i}") for i in range(2)]
    found = what_changed(
        TrainingRun(Archive(WorkTree(tmp_path), tmp_path), checkpoints, "soup.yaml"),
        broken(1, 0, ["run-0", "run-1"]),
        Asked([], {}),
    )
    assert found
    assert not found.layers
    assert "holds NaN or infinity" in found.notes[0]


def test_attack_a_checkpoint_whose_name_is_no_text_is_not_searched(tmp_path: Path) -> None:
    """No report can hold it: the gate ended without one although a regression was found."""
    for name in (b"run/checkpoint-1", b"run/checkpoint-2\xff"):
        (tmp_path / os.fsdecode(name)).mkdir(parents=True)
        (tmp_path / os.fsdecode(name) / "adapter_config.json").write_text("{}")
    archive = Archive(WorkTree(tmp_path), tmp_path / "cache")
    unasked: Any = None
    with pytest.raises(InputError, match=r"checkpoint-2\\udcff: has a name that is no text"):
        find_break(TrainingRun(archive, archive.find(["run/*"]), ""), unasked, unasked, say=print)
