"""What `adapterbot init` takes out of training data, how it would judge it, and what it writes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot import config as configs
from adapterbot.errors import InputError
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from adapterbot.init import Wanted, plan
from adapterbot.init.held_out import LEAST, held_out
from adapterbot.init.scoring import scoring_for
from adapterbot.init.survey import survey
from adapterbot.init.workflow import ACTION, RUNS_ON, workflow
from adapterbot.lock.training import load_training

ROOT = Path(__file__).resolve().parents[2]
PINNED = "org/adapter-action@" + "a" * 40
WANTED = Wanted(RUNS_ON, PINNED)


def alpaca(number: int, answer: str | None = None, **more: Any) -> dict[str, Any]:
    return {"instruction": f"Add {number} and 1.", "output": answer or str(number + 1), **more}


def repository(place: Path, *rows: Any, data: str = "train: train.jsonl") -> WorkTree:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (place / "train.jsonl").write_text("\n".join(lines) + "\n")
    (place / "soup.yaml").write_text(f"base: org/model\ndata: {{{data}}}\noutput: ./adapter\n")
    (place / "adapter").mkdir(exist_ok=True)
    (place / "adapter" / "adapter_config.json").write_text("{}")
    return WorkTree(place)


def taken(tree: WorkTree, *, chat: bool = True):
    return held_out(tree, load_training(tree, "soup.yaml"), chat=chat)


def planned(tree: WorkTree, wanted: Wanted = WANTED):
    return plan(tree, tree.survey(), wanted)


# ---------------------------------------------------------------- rows


def test_no_question_is_on_both_sides_and_no_row_is_lost(tmp_path):
    # Every third question is there twice, once in other letters and spacing.
    rows = [alpaca(n) for n in range(300)]
    rows += [{**row, "instruction": row["instruction"].upper() + " "} for row in rows[::3]]
    found = taken(repository(tmp_path, *rows))
    (rest,) = found.rest.values()
    left = [json.loads(line) for line in rest.splitlines()]
    asked = {row["messages"][0]["content"].strip().lower() for row in found.rows}
    stay = {row["instruction"].strip().lower() for row in left}
    assert not asked & stay
    assert len(asked) == len(found.rows) == 300 // 5
    assert found.questions_left == len(stay)
    assert found.moved + len(left) == len(rows)


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_the_choice_knows_neither_order_nor_neighbours(tmp_path_factory, random, more):
    rows = [alpaca(n) for n in range(200)]
    place = tmp_path_factory.mktemp("rows")
    first = {row["expected"] for row in taken(repository(place, *rows)).rows}
    shuffled = [*rows, *(alpaca(1000 + n) for n in range(more))]
    random.shuffle(shuffled)
    again = {row["expected"] for row in taken(repository(place, *shuffled)).rows}
    # As the data grows, old questions leave only for new ones whose hash is smaller.
    assert len(first - again) <= more
    if not more:
        assert first == again


def test_rows_that_are_no_questions_stay_where_they_are(tmp_path):
    odd = ["not JSON", '{"text": "plain"}', "[1]", '{"instruction": "no answer", "output": ""}']
    found = taken(repository(tmp_path, *odd, *(alpaca(n) for n in range(200))))
    (rest,) = found.rest.values()
    assert rest.decode().splitlines()[: len(odd)] == odd


def test_a_question_that_is_asked_over_and_over_is_not_taken(tmp_path):
    rows = [alpaca(n) for n in range(150)] + [alpaca(7, str(n)) for n in range(100)]
    assert "8" not in {row["expected"] for row in taken(repository(tmp_path, *rows)).rows}


def test_a_validation_file_is_taken_as_it_is(tmp_path):
    data = "train: train.jsonl, validation: val.jsonl"
    tree = repository(tmp_path, *(alpaca(n) for n in range(100)), data=data)
    (tmp_path / "val.jsonl").write_text("\n".join(json.dumps(alpaca(n)) for n in range(500, 530)))
    found = taken(tree)
    assert (found.sources, found.rest, found.moved) == (("val.jsonl",), {}, 0)
    assert len(found.rows) == 30


def test_every_training_file_loses_its_copies(tmp_path):
    rows = [alpaca(n) for n in range(200)]
    tree = repository(tmp_path, *rows, data="train: [train.jsonl, more.jsonl, old.csv]")
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "old.csv").write_text("instruction,output\n")
    found = taken(tree)
    assert set(found.rest) == {"train.jsonl", "more.jsonl"}
    assert found.unread == ("old.csv is not JSONL",)
    gone = {row["expected"] for row in found.rows}
    for content in found.rest.values():
        assert not gone & {json.loads(line)["output"] for line in content.splitlines()}


def test_without_a_chat_template_rows_are_plain_text(tmp_path):
    found = taken(repository(tmp_path, *(alpaca(n) for n in range(100))), chat=False)
    assert all(set(row) == {"prompt", "expected"} for row in found.rows)


def test_too_few_rows_are_not_taken(tmp_path):
    with pytest.raises(InputError, match=f"too few to hold {LEAST} out"):
        taken(repository(tmp_path, *(alpaca(n) for n in range(LEAST))))


# ---------------------------------------------------------------- the scorer


@pytest.mark.parametrize(
    ("answers", "scorer"),
    [
        (["41", "-2.5", "7"], "numeric"),
        (["12 × 3 = 36\n#### 36", "so\n#### 4"], "answer"),
        (['{"name": "f", "arguments": {"x": 1}}'], "tool_call"),
        (['{"total": 3}', "[]"], {"name": "exact", "collapse_whitespace": True}),
        (["spam", "ham"] * 20, "exact"),
        (["2024-03-04", "2023-01-02"], "exact"),
        (["A paragraph.\nAnd another one."], "rouge_l"),
        (["word " * 100], "rouge_l"),
    ],
)
def test_the_scorer_follows_from_the_answers(answers, scorer):
    assert scoring_for(answers).scorer == scorer


def test_an_answer_has_room_and_ends_with_its_line():
    found = scoring_for(["é" * 20])
    assert found.max_new_tokens == 48
    assert found.stop == ("\n",)
    assert scoring_for(["a\nb"]).stop == ()


# ---------------------------------------------------------------- the files


def test_what_is_written_is_what_the_gate_reads(tmp_path):
    rows = [alpaca(n, slice=("odd" if n % 2 else "even")) for n in range(200)]
    tree = repository(tmp_path, *rows)
    made = planned(tree)
    for name, content in made.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (adapter,) = configs.load(made.files["adapterbot.yaml"], "adapterbot.yaml").adapters
    assert (adapter.path, adapter.config, adapter.archive) == ("adapter", "soup.yaml", None)
    (task,) = load_suite(tree, adapter.suite).tasks
    assert (task.scorer, task.margin, len(task.samples)) == ("numeric", 0.05, 40)
    assert {sample.slice for sample in task.samples} == {"odd", "even"}
    again = planned(tree)
    assert again.files == {}
    # What is still to be locked is still to be committed.
    assert again.commands == ["adapterbot env lock", "adapterbot lock write"]
    assert again.made == ["soup-env.lock", "soup.lock", "soup.lock.d"]
    assert planned(tree, Wanted(("ubuntu-latest",), PINNED, force=True)).files.keys() == {
        ".github/workflows/adapter-gate.yml"
    }


def test_each_adapter_gets_the_config_that_says_it_writes_it(tmp_path):
    for name in ("one", "two"):
        for folder in (f"adapters/{name}", f"runs/{name}/checkpoint-10"):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "adapter_config.json").write_text("{}")
        text = f"base: org/model\ndata: {{train: x.jsonl}}\noutput: ../../adapters/{name}\n"
        (tmp_path / "training" / name).mkdir(parents=True)
        (tmp_path / "training" / name / "soup.yaml").write_text(text)
    made = planned(WorkTree(tmp_path))
    assert [(a.path, a.config, a.lock, a.archive) for a in made.survey.adapters] == [
        (f"adapters/{n}", f"training/{n}/soup.yaml", f"training/{n}/soup.lock", None)
        for n in ("one", "two")
    ]
    assert any("2 folders hold checkpoints" in note for note in made.notes)
    assert any("still to be written" in note for note in made.notes)
    assert made.files.keys() == {"adapterbot.yaml", ".github/workflows/adapter-gate.yml"}


def team(place: Path, name: str, numbers: range, *data: str) -> None:
    """An adapter in a folder of its own, trained on rows of its own or on the files named."""
    (place / name / "adapter").mkdir(parents=True)
    (place / name / "adapter" / "adapter_config.json").write_text("{}")
    (place / name / "rows.jsonl").write_text("".join(f"{json.dumps(alpaca(n))}\n" for n in numbers))
    named = json.dumps(list(data or ["rows.jsonl"]))
    (place / name / "soup.yaml").write_text(f"base: org/model\ndata: {{train: {named}}}\n")


def questions(content: bytes) -> set[str]:
    rows = [json.loads(line) for line in content.splitlines()]
    return {r["messages"][0]["content"] if "messages" in r else r["instruction"] for r in rows}


def test_adapters_of_different_data_are_judged_each_by_its_own(tmp_path):
    team(tmp_path, "eu", range(200))
    team(tmp_path, "us", range(1000, 1200))
    made = planned(WorkTree(tmp_path))
    assert [a.lock for a in made.survey.adapters] == ["eu/soup.lock", "us/soup.lock"]
    assert sum(command.startswith("adapterbot lock write") for command in made.commands) == 2
    suites = {a.path: a.suite for a in configs.load(made.files["adapterbot.yaml"], "x").adapters}
    assert suites == {"eu/adapter": "eu/evals/suite.yaml", "us/adapter": "us/evals/suite.yaml"}
    for name, numbers in (("eu", range(200)), ("us", range(1000, 1200))):
        held = questions(made.files[f"{name}/evals/held_out.jsonl"])
        left = questions(made.files[f"{name}/rows.jsonl"])
        assert held | left == {alpaca(n)["instruction"] for n in numbers}
        assert not held & left
    for name, content in made.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert planned(WorkTree(tmp_path)).files == {}


def test_a_file_of_two_trainings_loses_the_rows_of_both_suites(tmp_path):
    team(tmp_path, "eu", range(200))
    team(tmp_path, "us", range(1000, 1200), "rows.jsonl", "../eu/rows.jsonl")
    made = planned(WorkTree(tmp_path))
    left = questions(made.files["eu/rows.jsonl"]) | questions(made.files["us/rows.jsonl"])
    for name in ("eu", "us"):
        assert not questions(made.files[f"{name}/evals/held_out.jsonl"]) & left


def test_only_locks_whose_data_lost_rows_are_said_to_drift(tmp_path):
    team(tmp_path, "eu", range(200))
    team(tmp_path, "us", range(1000, 1200))
    (tmp_path / "us" / "evals").mkdir()
    (tmp_path / "us" / "evals" / "suite.yaml").write_text("version: 1\n")
    for name in ("eu", "us"):
        (tmp_path / name / "soup.lock").write_text("{}")
    text = "version: 1\nadapters:\n" + "".join(
        f"  - {{path: {name}/adapter, config: {name}/soup.yaml, lock: {name}/soup.lock,"
        f" suite: {name}/evals/suite.yaml}}\n"
        for name in ("eu", "us")
    )
    (tmp_path / "adapterbot.yaml").write_text(text)
    made = planned(WorkTree(tmp_path))
    assert "eu/rows.jsonl" in made.files
    assert "us/rows.jsonl" not in made.files
    drift = [note.split()[0] for note in made.notes if "pins the data as it was" in note]
    assert drift == ["eu/soup.lock"]


def test_adapters_of_the_same_data_share_a_suite(tmp_path):
    team(tmp_path, "eu", range(200))
    team(tmp_path, "us", range(5), "../eu/rows.jsonl")
    made = planned(WorkTree(tmp_path))
    assert {adapter.suite for adapter in made.survey.adapters} == {"evals/suite.yaml"}


def test_paths_that_make_the_same_key_get_two(tmp_path):
    for name in ("a/b", "a-b", "c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "adapter_config.json").write_text("{}")
    written = planned(WorkTree(tmp_path)).files["adapterbot.yaml"]
    keys = {a.path: a.key for a in configs.load(written, "adapterbot.yaml").adapters}
    assert len(set(keys.values())) == 3
    assert keys["c"] == "c"
    assert written.count(b"key:") == 1


def test_a_configuration_that_stays_says_where_the_suite_is(tmp_path):
    team(tmp_path, "eu", range(200))
    team(tmp_path, "us", range(1000, 1200))
    (tmp_path / "mine.yaml").write_text("version: 1\ntasks: []\n")
    entry = "{path: eu/adapter, config: eu/soup.yaml, lock: eu/soup.lock, suite: mine.yaml}"
    (tmp_path / "adapterbot.yaml").write_text(f"adapters: [{entry}]\n")
    made = planned(WorkTree(tmp_path))
    assert made.files.keys() == {".github/workflows/adapter-gate.yml"}  # and no row moved
    assert made.kept == ["mine.yaml", "adapterbot.yaml"]
    assert (
        "us/adapter is not listed in the configuration: the default policy gates it" in made.notes
    )
    (tmp_path / "adapterbot.yaml").write_text("mine: true\n")
    with pytest.raises(InputError, match="mine"):
        planned(WorkTree(tmp_path))


@pytest.mark.parametrize("named", ["", "judged/nightly.yaml"])
def test_a_suite_of_soups_is_kept_and_no_row_is_moved(tmp_path, named):
    tree = repository(tmp_path, *(alpaca(n) for n in range(300)))
    if named:
        with (tmp_path / "soup.yaml").open("a") as config:
            config.write(f"training: {{eval_gate: {{enabled: true, suite: ./{named}}}}}\n")
    suite = tmp_path / (named or "evals/gate.yaml")
    suite.parent.mkdir()
    (suite.parent / "rows.jsonl").write_text('{"prompt": "2 + 2?", "expected": "4"}\n')
    task = "{type: custom, name: sums, threshold: 0.5, tasks: rows.jsonl}"
    suite.write_text(f"suite: nightly\ntasks: [{task}]\n")
    made = planned(tree)
    (adapter,) = configs.load(made.files["adapterbot.yaml"], "adapterbot.yaml").adapters
    assert adapter.suite == suite.relative_to(tmp_path).as_posix()
    assert adapter.suite in made.kept
    assert sorted(made.files) == [".github/workflows/adapter-gate.yml", "adapterbot.yaml"]


def test_an_adapter_at_the_root_is_listed_once_it_is(tmp_path):
    tree = repository(tmp_path, *(alpaca(n) for n in range(60)))
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapterbot.yaml").write_text("adapters: [{path: ., key: root}, {path: adapter}]\n")
    assert not [note for note in planned(tree).notes if "not listed" in note]


def test_attack_a_folder_whose_name_is_a_command_is_only_a_name(tmp_path):
    name = "a; touch pwned"
    (tmp_path / name).mkdir()
    repository(tmp_path / name, *(alpaca(n) for n in range(60)))
    for command in planned(WorkTree(tmp_path)).commands:
        assert ";" not in shlex.shlex(command, punctuation_chars=True)


def test_without_an_adapter_there_is_nothing_to_do(tmp_path):
    with pytest.raises(InputError, match="holds no adapter"):
        planned(WorkTree(tmp_path))


def test_the_workflow_is_the_published_one_with_what_was_asked_for():
    template = (ROOT / "adapterbot" / "templates" / "adapter-gate.yml").read_text()
    assert workflow(runs_on=RUNS_ON, action=ACTION, was="", lfs=False) == template
    text = workflow(runs_on=("ubuntu-latest",), action=PINNED, was="v1", lfs=True)
    (job,) = yaml.safe_load(text)["jobs"].values()
    checkout, ours = job["steps"]
    assert job["runs-on"] == "ubuntu-latest"
    assert checkout["with"] == {"lfs": True, "fetch-depth": 0, "persist-credentials": False}
    assert ours == {"uses": PINNED}
    assert f"{PINNED} # v1\n" in text


def test_lfs_is_seen_beside_the_weights_too(tmp_path):
    """Where a folder came from the Hub, its .gitattributes came along."""
    tree = repository(tmp_path, *(alpaca(n) for n in range(60)))
    assert not survey(tree, tree.survey()).uses_lfs
    (tmp_path / "adapter" / ".gitattributes").write_text("*.safetensors filter=lfs -text\n")
    assert survey(tree, tree.survey()).uses_lfs


@pytest.mark.parametrize(
    "bad",
    [{"runs_on": ()}, {"runs_on": ("a]: [b",)}, {"action": "org/action"}, {"action": "a b@c"}],
)
def test_the_workflow_takes_no_other_text(bad):
    with pytest.raises(InputError):
        workflow(**{"runs_on": RUNS_ON, "action": ACTION, "was": "", "lfs": False, **bad})
