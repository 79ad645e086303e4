"""`adapterbot lock` and `adapterbot env lock` as a shell meets them: codes, documents, annotations,
and what is left after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from adapterbot import lock
from adapterbot.cli import main
from adapterbot.lock.explain import Entry
from adapterbot.records import LockResult
from tests.example import commit, git

HASHES = {"--base-sha": "a" * 64, "--dataset-sha": "b" * 64, "--env-hash": "c" * 64}
ALL = ["--base-model", "org/model", *(word for pair in HASHES.items() for word in pair)]
SOUP_YAML = "base: ./base\ndata:\n  train: train.jsonl\ntraining:\n  seed: 7\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTERBOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "train.jsonl").write_text("".join(f'{{"q": {i}}}\n' for i in range(9)))
    (tmp_path / "soup.yaml").write_text(SOUP_YAML)
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    return tmp_path


class Ran:
    """Exit code, standard output and standard error of one command."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        self.code = stopped.value.code
        self.out, self.err = capsys.readouterr()

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def written(capsys: pytest.CaptureFixture[str]) -> None:
    assert Ran(capsys, "env", "lock", "--from", "requirements.txt").code == 0
    assert Ran(capsys, "lock", "write").code == 0


# ---------------------------------------------------------------- results


def test_write_show_and_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(capsys)
    assert Ran(capsys, "lock", "check").code == 0
    shown = Ran(capsys, "lock", "show", "soup.lock")
    assert shown.code == 0
    assert "closure verified" in shown.err
    document = Ran(capsys, "lock", "show", "--json").document
    assert document == json.loads((project / "soup.lock").read_text())
    checked = Ran(capsys, "lock", "check", "--json").document
    assert LockResult.model_validate(checked).status == "ok"
    assert checked == json.loads(LockResult.model_validate(checked).model_dump_json())


def test_the_seeds_own_line_needs_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    document = Ran(capsys, "lock", "write", *ALL, "-o", "soup.lock", "--json").document
    assert document["closure_sha"] == lock.closure("a" * 64, "b" * 64, "c" * 64)
    assert Ran(capsys, "lock", "check", *ALL).code == 0
    other = [*ALL[:-1], "d" * 64]
    drift = Ran(capsys, "lock", "check", *other)
    assert drift.code == 3
    assert "env_hash" in drift.out
    assert "given by hand" in drift.out


def test_a_drift_is_explained_from_the_last_commit(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(capsys)
    git(project, "init", "-q")
    commit(project, "locked")
    rows = (project / "train.jsonl").read_text().splitlines(keepends=True)
    (project / "train.jsonl").write_text("".join(rows[2:]) + '{"q": 100}\n')
    (project / "requirements.txt").write_text("torch==2.14.0\n")
    (project / "soup.yaml").write_text(SOUP_YAML.replace("7", "8"))
    found = Ran(capsys, "lock", "check")
    assert found.code == 3
    assert "+1 row, −2 rows: train.jsonl changed" in found.out
    assert "requirements.txt: torch 2.13.0 → 2.14.0" in found.out
    assert "training.seed 7 → 8" in found.out


def test_the_commit_that_wrote_the_lock_knows_what_was_locked(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the data was committed since, and nothing was recorded beside the lock."""
    written(capsys)
    git(project, "init", "-q")
    for path in (project / "soup.lock.d").iterdir():
        path.unlink()
    commit(project, "locked")
    with (project / "train.jsonl").open("a") as data:
        data.write('{"q": 100}\n')
    (project / "base" / "tokenizer.json").write_text("{}")
    (project / "requirements.txt").write_text("torch==2.14.0\n")
    commit(project, "more data")
    found = Ran(capsys, "lock", "check")
    assert found.code == 3
    assert "+1 row: train.jsonl changed" in found.out
    assert "tokenizer.json added" in found.out
    assert "requirements.txt: torch 2.13.0 → 2.14.0" in found.out


def test_a_drift_is_annotated_on_the_line_of_soup_yaml(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(capsys)
    (project / "train.jsonl").write_text("{}\n")
    (project / "base" / "config.json").write_text('{"a": 1}')
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    found = Ran(capsys, "lock", "check", "--json")
    assert found.code == 3
    assert found.document["status"] == "drift"
    lines = [line for line in found.err.splitlines() if line.startswith("::")]
    assert [line.partition("::")[2].partition(",title")[0] for line in lines] == [
        "error file=soup.yaml,line=1",
        "error file=soup.yaml,line=3",
    ]
    assert "config.json changed" in lines[0]


def test_every_data_entry_that_drifted_is_annotated_on_its_own_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "more").mkdir()
    for name in ("more/a.jsonl", "more/b.jsonl", "val.jsonl"):
        (project / name).write_text("{}\n")
    (project / "soup.yaml").write_text(
        "base: ./base\ndata:\n  validation: val.jsonl\n  train:\n"
        "  - ./train.jsonl\n  - more/*.jsonl\n"
    )
    written(capsys)
    (project / "train.jsonl").write_text("{}\n")
    (project / "more" / "b.jsonl").unlink()
    (project / "more" / "c.jsonl").write_text('{"a": 1}\n')
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    found = Ran(capsys, "lock", "check", "soup.lock")
    assert found.code == 3
    lines = [line for line in found.err.splitlines() if line.startswith("::error")]
    assert [(line.split(",")[1], line.rpartition(": ")[2]) for line in lines] == [
        ("line=5", "train.jsonl changed"),
        ("line=6", "more/b.jsonl removed, more/c.jsonl added"),
    ]


def test_the_cache_is_used_and_can_be_left_out(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterbot.files.tree._SETTLED_NS", -(10**18))
    written(capsys)
    cache = project / "cache" / "digests.json"
    assert "train.jsonl" in cache.read_text()
    cache.write_bytes(b"damaged")
    assert Ran(capsys, "lock", "check").code == 0
    assert "train.jsonl" in cache.read_text()
    cache.unlink()
    assert Ran(capsys, "lock", "check", "--no-cache").code == 0
    assert not cache.exists()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--base-sha", "A" * 64, "--base-sha: must be 64 lowercase hex characters, not upper-case"),
        ("--dataset-sha", "a" * 63, "--dataset-sha: must be 64 lowercase hex characters, not 63"),
        ("--env-hash", "a" * 64 + "\n", "--env-hash: must be 64 lowercase hex characters, without"),
        ("--env-hash", "g" * 64, "--env-hash: must be 64 lowercase hex characters"),
        ("--base-model", "", "--base-model: is empty"),
        ("--base-model", "a\n::error::b", "--base-model: holds a control character"),
        ("--base-model", "x" * 513, "--base-model: is longer than 512"),
    ],
)
def test_a_malformed_hash_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, says: str
) -> None:
    for command in ("write", "check"):
        found = Ran(capsys, "lock", command, option, value)
        assert found.code == 2
        assert says in found.err
    assert not (project / "soup.lock").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("rm soup.lock && mkdir soup.lock", "soup.lock: is a directory"),
        ("rm soup.lock && mkdir soup.lock && touch soup.lock/x", "soup.lock: is a directory"),
        ("head -c 2097152 /dev/zero > soup.lock", "more than the 1,048,576 we read"),
        ("sed s/.$/x/ soup.lock > x; mv x soup.lock", "soup.lock: line"),
        ("rm soup.lock && ln -s /etc/hostname soup.lock", "soup.lock: is a symbolic link"),
        ("rm -r base && ln -s /etc base", "base: is a symbolic link"),
        ("rm train.jsonl && ln -s /etc/passwd train.jsonl", "train.jsonl: is a symbolic link"),
        ("rm soup.yaml && mkdir soup.yaml && touch soup.yaml/x", "soup.yaml: is a directory"),
        (
            "rm soup-env.lock && mkdir -p soup-env.lock/x && touch soup-env.lock/x/y",
            "soup-env.lock",
        ),
        ("rm base/config.json && mkdir base/config.json && touch base/a.json", "holds no model"),
        ("rm train.jsonl && mkfifo train.jsonl", "train.jsonl"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    project: Path, capsys: pytest.CaptureFixture[str], spoil: str, says: str
) -> None:
    written(capsys)
    subprocess.run(spoil, shell=True, cwd=project, check=True)
    found = Ran(capsys, "lock", "check", "--json")
    assert found.code == 2, (found.out, found.err)
    assert says in found.err
    problem = found.document["error"]
    assert problem["kind"] == "bad_input"
    assert problem["fix"]


def test_the_folder_of_a_lock_is_not_the_lock(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(capsys)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    for command in (("check", "."), ("show", "."), ("write", "--config", ".")):
        found = Ran(capsys, "lock", *command)
        assert found.code == 2
        assert found.err == "error: .: is a directory (name the file in it)\n"


@pytest.mark.parametrize(
    "break_",
    ["rm train.jsonl", "rm base/config.json", "rm soup-env.lock", "echo '- a' > soup.yaml"],
)
def test_a_lock_is_never_replaced_by_a_broken_one(
    project: Path, capsys: pytest.CaptureFixture[str], break_: str
) -> None:
    written(capsys)
    before = {path: path.read_bytes() for path in project.glob("soup.lock*") if path.is_file()}
    subprocess.run(break_, shell=True, cwd=project, check=True)
    assert Ran(capsys, "lock", "write").code == 2
    after = {path: path.read_bytes() for path in project.glob("soup.lock*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_lock_that_is_not_there_is_to_be_written(
    project: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    found = Ran(capsys, "lock", command)
    assert found.code == 2
    assert found.err == (
        "error: soup.lock: does not exist (write it with `adapterbot lock write`)\n"
    )


@pytest.mark.parametrize("spoil", ["mkdir out.lock", "ln -s elsewhere out.lock"])
def test_where_no_lock_can_be_written_nothing_is(
    project: Path, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    written(capsys)
    subprocess.run(spoil, shell=True, cwd=project, check=True)
    before = sorted(project.rglob("*"))
    found = Ran(capsys, "lock", "write", "-o", "out.lock", "--rows")
    assert found.code == 2
    assert "out.lock: is a " in found.err
    assert sorted(project.rglob("*")) == before


def test_kill_9_during_a_write_leaves_a_lock_that_is_whole(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock and the record beside it are two files; killed between them, the record is passed
    over and the lock still holds."""
    written(capsys)
    loop = (
        "import itertools\nfrom pathlib import Path\nfrom adapterbot.commands import lock\n"
        "print('ready', flush=True)\n"
        "for i in itertools.count():\n"
        "    Path('train.jsonl').write_text('{\"q\": 1}\\n' * (1 + i % 2))\n"
        "    lock.write(Path('soup.yaml'), Path('soup.lock'), rows=True)\n"
    )
    for delay in (0.01, 0.02, 0.03, 0.05, 0.08, 0.13):
        process = subprocess.Popen(
            [sys.executable, "-c", loop], cwd=project, stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert Ran(capsys, "lock", "show").code == 0
        found = Ran(capsys, "lock", "check")
        assert found.code in (0, 3), found.err
    assert Ran(capsys, "lock", "write").code == 0
    assert Ran(capsys, "lock", "check").code == 0


# ---------------------------------------------------------------- environments


def test_env_lock_from_here_and_from_a_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Ran(capsys, "env", "lock", "--json").document
    assert here["path"] == "soup-env.lock"
    assert len(here["env_hash"]) == 64
    content = json.loads((project / "soup-env.lock").read_text())
    assert {"name", "version", "source"} == set(content["entries"][0])
    (project / "locks").mkdir()
    (project / "requirements.txt").rename(project / "locks" / "requirements.txt")
    assert Ran(capsys, "env", "lock", "--from", "locks/requirements.txt").code == 0
    content = json.loads((project / "soup-env.lock").read_text())
    assert content["made_from"]["file"] == "locks/requirements.txt"
    broken = Ran(capsys, "env", "lock", "--from", "soup.yaml")
    assert broken.code == 2
    assert "is not a lock file that we read" in broken.err
    assert Ran(capsys, "env", "lock", "--from", "nowhere.txt").code == 2


def test_an_outcome_has_the_fields_of_its_record() -> None:
    part = lock.Part("base_model", "a", "b", ok=False, entries=(Entry(3, "c changed"),))
    check = lock.Check("drift", "soup.lock", (part,))
    assert json.loads(check.record().model_dump_json()) == json.loads(json.dumps(asdict(check)))


# ---------------------------------------------------------------- a folder for each adapter


def test_a_locks_own_folder_holds_its_config(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run at the top of a repository whose adapters lie in folders, as a gate's comment tells."""
    git(project, "init", "-q")
    written(capsys)
    team = project / "teams" / "the eu"
    team.mkdir(parents=True)
    text = SOUP_YAML.replace("./base", "../../base").replace("train.jsonl", "../../train.jsonl")
    (team / "soup.yaml").write_text(text)
    lock_path = "teams/the eu/soup.lock"
    unpinned = Ran(capsys, "lock", "write", "-o", lock_path)
    assert unpinned.code == 2
    assert "`adapterbot env lock -o 'teams/the eu/soup-env.lock'`" in unpinned.err
    pins = ("--from", "requirements.txt", "-o", "teams/the eu/soup-env.lock")
    assert Ran(capsys, "env", "lock", *pins).code == 0
    assert Ran(capsys, "lock", "write", "-o", lock_path).code == 0
    assert json.loads((team / "soup.lock").read_text())["base_model"] == "../../base"
    assert Ran(capsys, "lock", "check", lock_path).code == 0
    (team / "soup.yaml").write_text(text.replace("../../train.jsonl", "../../base/config.json"))
    drifted = Ran(capsys, "lock", "check", lock_path)
    assert drifted.code == 3
    assert f"to do: `adapterbot lock write -o '{lock_path}'`" in drifted.err
    # Without one there, the config is the one here.
    assert Ran(capsys, "lock", "write", "-o", "elsewhere.lock").code == 0
    assert json.loads((project / "elsewhere.lock").read_text())["base_model"] == "./base"
