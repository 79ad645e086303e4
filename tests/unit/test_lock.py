"""The lock: Soup's format and closure, digests anyone can recompute, drift that is explained."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterbot import lock
from adapterbot.commands import lock as commands
from adapterbot.errors import InputError
from adapterbot.files import jsonl
from adapterbot.files.tree import WorkTree
from adapterbot.lock import environment, locked_rows, sidecar
from adapterbot.lock.base_model import model_file_names
from adapterbot.lock.check import other_weights
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.environment import EnvLock, Package
from adapterbot.lock.hashing import combined
from adapterbot.lock.pinned import Given
from adapterbot.records import LockStatus

CLOSURE = "b20dd8bdd812e18599a5f4b49437265f5ef51619181f1b0f6f57775bf1fbae60"
ENVIRONMENT = EnvLock("none", "3.12.1", "any", None, (Package("numpy", "2.1.0"),), "now")
SOUP_YAML = "base: ./base\ntask: sft\ndata:\n  train: ./data/train.jsonl\n  format: alpaca\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "base" / "model.safetensors").write_bytes(bytes(range(256)))
    (tmp_path / "base" / "README.md").write_text("notes")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "soup.yaml").write_text(SOUP_YAML)
    (tmp_path / "adapters" / "dates").mkdir(parents=True)
    (tmp_path / "adapters" / "dates" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapters" / "dates" / "adapter_model.safetensors").write_bytes(bytes(64))
    (tmp_path / "adapters" / "dates" / "README.md").write_text("notes")
    (tmp_path / "soup-env.lock").write_text(environment.dumps(ENVIRONMENT))
    commands.write(tmp_path / "soup.yaml", tmp_path / "soup.lock")
    return tmp_path


def check(project: Path) -> LockStatus:
    return commands.check(project / "soup.lock", project / "soup.yaml").record().status


def drifted(result: Any) -> Any:
    """The one part that does not match."""
    (part,) = [part for part in result.parts if not part.ok]
    return part


def test_the_closure_is_soups() -> None:
    assert lock.closure("a" * 64, "b" * 64, "c" * 64) == CLOSURE


def test_the_file_is_soups_byte_for_byte(project: Path) -> None:
    text = (project / "soup.lock").read_text()
    parsed = json.loads(text)
    assert (
        sorted(parsed)
        == list(parsed)
        == [
            "base_model",
            "base_model_sha",
            "closure_sha",
            "created_at",
            "dataset_sha",
            "env_hash",
            "soup_version",
        ]
    )
    assert text == json.dumps(parsed, indent=2, sort_keys=True)


def test_a_written_lock_checks(project: Path) -> None:
    assert check(project) is LockStatus.OK
    assert commands.read(project / "soup.lock").base_model == "./base"


def test_digests_can_be_recomputed_with_sha256sum(project: Path) -> None:
    written = commands.read(project / "soup.lock")
    listing = subprocess.run(
        "cd base && sha256sum config.json model.safetensors",
        shell=True,
        cwd=project,
        check=True,
        capture_output=True,
    ).stdout
    assert written.base_model_sha == hashlib.sha256(listing).hexdigest()
    one = subprocess.run(
        ["sha256sum", "data/train.jsonl"], cwd=project, check=True, capture_output=True, text=True
    ).stdout
    assert written.dataset_sha == one.split()[0]


@given(st.dictionaries(st.text(min_size=1), st.just("0" * 64), min_size=1), st.randoms())
def test_the_order_of_files_is_no_drift(files: dict[str, str], random: object) -> None:
    shuffled = list(files.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert combined(dict(shuffled)) == combined(files)


def test_notes_beside_the_model_are_not_the_model(project: Path) -> None:
    (project / "base" / "README.md").write_text("other notes")
    assert check(project) is LockStatus.OK


def test_a_drift_names_the_part_the_line_and_the_file(project: Path, tmp_path: Path) -> None:
    (project / "data" / "train.jsonl").write_text("{}\n")
    tree = WorkTree(project)
    part = drifted(lock.check(tree, "soup.lock", "soup.yaml", before=tree))
    assert (part.part, part.file, part.line) == ("dataset_sha", "soup.yaml", 4)
    assert part.explanation == "data/train.jsonl changed"
    for file in (project / "soup.lock.d").iterdir():
        file.unlink()
    part = drifted(lock.check(tree, "soup.lock", "soup.yaml", before=tree))
    assert part.explanation == "the lock was not written from these files"


def test_files_that_moved_since_the_base_are_listed(project: Path, tmp_path: Path) -> None:
    old = project.parent / f"{project.name}-old"
    shutil.copytree(project, old)
    (project / "data" / "train.jsonl").write_text("{}\n")
    (project / "base" / "extra.json").write_text("{}")
    result = lock.check(WorkTree(project), "soup.lock", "soup.yaml", before=WorkTree(old))
    shutil.rmtree(old)
    found = {part.part: part.explanation for part in result.parts if not part.ok}
    assert found == {
        "base_model_sha": "extra.json added",
        "dataset_sha": "+1 row, −2 rows: data/train.jsonl changed",
    }


def test_a_missing_environment_is_said_and_not_passed_over(project: Path) -> None:
    (project / "soup-env.lock").unlink()
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    assert "environment not checked" in result.note
    assert "env_hash" not in {part.part for part in result.parts}
    with pytest.raises(InputError, match="no environment to pin"):
        commands.write(project / "soup.yaml", project / "soup.lock")


def test_environments_are_compared_by_package(project: Path) -> None:
    old = environment.loads((project / "soup-env.lock").read_bytes(), "x")
    entries = tuple(
        replace(entry, version="0.0.1") if entry.name == "numpy" else entry for entry in old.entries
    )
    new = replace(old, entries=entries)
    assert environment.explain(environment.facts(old), environment.facts(new)) == (
        "numpy 2.1.0 → 0.0.1",
    )
    assert environment.env_hash(old) != environment.env_hash(new)
    later = replace(old, created_at="later")
    assert environment.env_hash(later) == environment.env_hash(old)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(closure_sha="0" * 64), "closure_sha: is not the closure"),
        (lambda d: d.update(dataset_sha="0" * 64), "closure_sha: is not the closure"),
        (lambda d: d.update(env_hash=d["env_hash"].upper()), "env_hash: must be 64 lowercase hex"),
        (lambda d: d.update(env_hash=d["env_hash"][:-1]), "env_hash: must be 64 lowercase hex"),
        (lambda d: d.update(env_hash=d["env_hash"] + "\n"), "env_hash: must be 64 lowercase hex"),
        (lambda d: d.pop("base_model_sha"), "base_model_sha: is missing"),
        (lambda d: d.update(base_model=""), "base_model: "),
        (lambda d: d.update(soup_version=7), "soup_version: "),
    ],
)
def test_a_broken_lock_names_its_field(project: Path, change: object, says: str) -> None:
    parsed = json.loads((project / "soup.lock").read_text())
    change(parsed)  # type: ignore[operator]
    (project / "soup.lock").write_text(json.dumps(parsed))
    with pytest.raises(InputError) as caught:
        commands.read(project / "soup.lock")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"base_model": "a", "base_model": "b"}', "'base_model' twice"),
        (b"[]", "not a JSON object"),
        (b"{", "line 1: is not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "soup.lock"),
        (b" " * (2 << 20), "more than the 1,048,576"),
    ],
)
def test_what_is_not_a_lock(project: Path, content: bytes, says: str) -> None:
    (project / "soup.lock").write_bytes(content)
    with pytest.raises(InputError) as caught:
        commands.read(project / "soup.lock")
    assert says in str(caught.value)


def test_a_directory_or_a_link_is_not_a_lock(project: Path) -> None:
    (project / "soup.lock").unlink()
    with pytest.raises(InputError, match="does not exist"):
        commands.check(project / "soup.lock", project / "soup.yaml")
    (project / "soup.lock").mkdir()
    with pytest.raises(InputError):
        commands.read(project / "soup.lock")
    (project / "soup.lock").rmdir()
    (project / "soup.lock").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="symbolic link"):
        commands.read(project / "soup.lock")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: sft\ndata: {train: x}", "base (line 1): is missing"),
        ("base: ./base\ndata: {}", "data.train (line 2): is missing"),
        ("base: ./nowhere\ndata: {train: data/train.jsonl}", "base (line 1): './nowhere' does not"),
        ("base: ./base\ndata: {train: nowhere.jsonl}", "'nowhere.jsonl' matches no file"),
        ("base: ./base\ndata: {train: 'data/*.csv'}", "'data/*.csv' matches no file"),
        ("base: /etc\ndata: {train: data/train.jsonl}", "points outside the repository"),
        ("base: ./base\ndata: {train: ../../x}", "path leaves the repository"),
        ("base: ./data\ndata: {train: data/train.jsonl}", "holds no model"),
        ("- a", "must be a mapping"),
    ],
)
def test_a_config_that_cannot_be_locked(project: Path, text: str, says: str) -> None:
    (project / "soup.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        lock.measure(WorkTree(project), "soup.yaml")
    assert says in str(caught.value)


def test_globs_directories_and_lists_of_data(project: Path) -> None:
    (project / "data" / "more.jsonl").write_text("{}")
    text = "base: ./base\ndata:\n  train: {}\n"
    digests = set()
    for train in ("data/*.jsonl", "data", "[data/more.jsonl, data/train.jsonl]"):
        (project / "soup.yaml").write_text(text.format(train))
        digests.add(lock.measure(WorkTree(project), "soup.yaml").dataset_sha)
    assert len(digests) == 1


def test_a_lock_check_imports_nothing_heavy(project: Path) -> None:
    """Not even pydantic, which alone takes as long as the rest. When this fails for a command line
    of another command: import what is only for its types under `if TYPE_CHECKING`."""
    code = (
        "import sys\n"
        "from adapterbot.cli import main\n"
        "try: main(['lock', 'check', 'soup.lock'])\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'github', 'transformers', 'peft', 'numpy', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)


# ---------------------------------------------------------------- what is hashed


def test_several_copies_of_the_weights_are_one_model() -> None:
    def chosen(*names: str, index: object = None) -> list[str]:
        return model_file_names(names, lambda _: json.dumps(index).encode())

    copies = ["pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors", "x.md"]
    assert chosen("config.json", "model.safetensors", *copies) == [
        "config.json",
        "model.safetensors",
    ]
    # The attack: a stray file, so that the pickle that is loaded would not be looked at.
    stray = ("config.json", "other.safetensors", "pytorch_model.bin")
    assert chosen(*stray) == list(stray)
    assert chosen("config.json", "a.bin") == ["a.bin", "config.json"]
    own = "adapter_model.safetensors"
    assert own in chosen("config.json", "model.safetensors", own)
    assert chosen("a.safetensors", own) == ["a.safetensors", own]
    # The attack: an index that names what looks like somebody else's copy.
    index = "model.safetensors.index.json"
    shards = {"weight_map": {"a": "consolidated.safetensors", "b": "original/model.safetensors"}}
    assert chosen("model-00001-of-00001.safetensors", index, *copies, index=shards) == [
        "consolidated.safetensors",
        index,
        "original/model.safetensors",
    ]
    for broken in ("{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'):
        with pytest.raises(InputError, match="weight_map: must be an object"):
            chosen(index, index=json.loads(broken))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("data/*.jsonl", {"train.jsonl", "more.jsonl"}),
        ("data/**/*.jsonl", {"train.jsonl", "more.jsonl", "deep/x.jsonl"}),
        ("data/m?re.jsonl", {"more.jsonl"}),
        ("data/[mt]*", {"train.jsonl", "more.jsonl"}),
    ],
)
def test_patterns_match_as_a_shell_does(project: Path, pattern: str, names: set[str]) -> None:
    (project / "data" / "more.jsonl").write_text("{}")
    (project / "data" / "deep").mkdir()
    (project / "data" / "deep" / "x.jsonl").write_text("{}")
    (project / "soup.yaml").write_text(f"base: ./base\ndata: {{train: '{pattern}'}}\n")
    found = lock.measure(WorkTree(project), "soup.yaml").dataset
    assert {name.removeprefix("data/") for name in found.files} == names


@pytest.mark.parametrize("data", ["./data", "./data/*", "./data/**/*", "./**/*.jsonl"])
def test_what_a_desktop_leaves_in_a_folder_is_no_data(project: Path, data: str) -> None:
    """A Mac writes .DS_Store, which nobody commits: in every other checkout it would be missing."""
    (project / "soup.yaml").write_text(f"base: ./base\ndata:\n  train: {data!r}\n")
    commands.write(project / "soup.yaml", project / "soup.lock")
    (project / "data" / ".DS_Store").write_text("x")
    (project / "data" / ".ipynb_checkpoints").mkdir()
    (project / "data" / ".ipynb_checkpoints" / "train-checkpoint.jsonl").write_text("x")
    assert check(project) is LockStatus.OK
    # What is named is named.
    for name in (".DS_Store", ".ipynb_checkpoints", ".ipy*/*", ".*"):
        (project / "soup.yaml").write_text(f"base: ./base\ndata: {{train: './data/{name}'}}\n")
        assert lock.measure(WorkTree(project), "soup.yaml").dataset.files


def test_a_pattern_of_many_folders_ends(project: Path) -> None:
    """Attack: `**` thirty times, which has more ways to match than anybody can try."""
    deep = project.joinpath(*["d"] * 30)
    deep.mkdir(parents=True)
    (deep / "x.jsonl").write_text("{}")
    (project / "soup.yaml").write_text(f"base: ./base\ndata: {{train: '{'**/' * 30}x.jsonl'}}\n")
    found = lock.measure(WorkTree(project), "soup.yaml").dataset
    assert [Path(name).name for name in found.files] == ["x.jsonl"]
    (project / "soup.yaml").write_text(f"base: ./base\ndata: {{train: '{'**/' * 30}y.jsonl'}}\n")
    with pytest.raises(InputError, match="matches no file"):
        lock.measure(WorkTree(project), "soup.yaml")


def test_every_data_field_counts_and_the_line_is_that_of_the_file(project: Path) -> None:
    for name in ("val.jsonl", "replay.csv", "images/a.png"):
        (project / "data" / name).parent.mkdir(exist_ok=True)
        (project / "data" / name).write_bytes(b"x\n")
    (project / "soup.yaml").write_text(
        "base: ./base\ndata:\n  train:\n  - data/train.jsonl\n  validation: data/val.jsonl\n"
        "  replay: data/replay.csv\n  image_dir: data/images\n"
    )
    commands.write(project / "soup.yaml", project / "soup.lock")
    for name, line in {
        "train.jsonl": 4,
        "val.jsonl": 5,
        "replay.csv": 6,
        "images/a.png": 7,
    }.items():
        before = (project / "data" / name).read_bytes()
        (project / "data" / name).write_bytes(before + b"y\n")
        part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
        assert (part.part, part.line) == ("dataset_sha", line)
        assert f"data/{name} changed" in part.explanation
        (project / "data" / name).write_bytes(before)


@pytest.mark.parametrize("count", [2, 60])
def test_however_much_data_moved_the_report_holds_what_is_said_of_it(
    project: Path, count: int
) -> None:
    folder = Path("data", *("d" * 240 for _ in range(3)))
    (project / folder).mkdir(parents=True)
    files = [folder / f"{i}.jsonl" for i in range(count)]
    for file in files:
        (project / file).write_text("{}\n")
    listed = "".join(f"  - {file}\n" for file in files)
    (project / "soup.yaml").write_text(f"base: ./base\ndata:\n  train:\n{listed}")
    commands.write(project / "soup.yaml", project / "soup.lock")
    for file in files:
        (project / file).write_text("{}\n{}\n")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml").record())
    assert [entry.line for entry in part.entries] == list(range(4, 4 + count))[:50]
    assert part.line == 4


def test_a_name_that_is_no_text_is_locked_and_told(project: Path) -> None:
    odd = project / "data" / os.fsdecode(b"\xff.jsonl")
    odd.write_text("{}\n")
    (project / "soup.yaml").write_text("base: ./base\ndata: {train: data}\n")
    commands.write(project / "soup.yaml", project / "soup.lock", rows=True)
    assert check(project) is LockStatus.OK
    odd.write_text("{}\n{}\n")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml").record())
    assert part.explanation == "+1 row: data/\\udcff.jsonl changed"


def test_a_lock_does_not_depend_on_where_the_project_lies(project: Path, tmp_path: Path) -> None:
    (project / "data" / "more.jsonl").write_text("{}")
    (project / "soup.yaml").write_text("base: ./base\ndata: {train: data}\n")
    nested = tmp_path / "repository" / "a" / "b"
    shutil.copytree(project, nested, ignore=shutil.ignore_patterns("repository"))
    (tmp_path / "repository" / ".git").mkdir()
    made = [commands.write(p / "soup.yaml", p / "soup.lock") for p in (project, nested)]
    assert made[0].closure_sha == made[1].closure_sha


def test_every_row_can_be_kept_so_that_a_drift_counts_them(project: Path) -> None:
    data = project / "data" / "train.jsonl"
    rows = [f'{{"q": {i}, "a": "x{i}"}}\n' for i in range(50)]
    data.write_text("".join(rows))
    commands.write(project / "soup.yaml", project / "soup.lock", rows=True)
    rows[20] = '{"q": 20, "a": "other"}\n'
    data.write_text("".join([*rows[3:], *(f'{{"new": {i}}}\n' for i in range(120))]))
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.explanation == "+120 rows, −3 rows, 1 changed: data/train.jsonl changed"
    commands.write(project / "soup.yaml", project / "soup.lock")
    assert not (project / "soup.lock.d" / "rows.txt").exists()


def test_a_folder_in_the_place_of_the_kept_rows_keeps_none(project: Path) -> None:
    commands.write(project / "soup.yaml", project / "soup.lock")
    (project / "soup.lock.d" / "rows.txt").mkdir()
    (project / "soup.lock.d" / "rows.txt" / "x").write_text("x")
    data = project / "data" / "train.jsonl"
    data.write_bytes(data.read_bytes() + b"{}\n")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.explanation == "data/train.jsonl changed"


def test_of_kept_rows_only_those_of_the_files_that_moved_are_read(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [project / "data" / f"shard-{i:02d}.jsonl" for i in range(40)]
    for i, shard in enumerate(shards):
        shard.write_text("".join(f'{{"shard": {i}, "q": {j}}}\n' for j in range(10)))
    (project / "soup.yaml").write_text("base: ./base\ndata: {train: data/shard-*.jsonl}\n")
    commands.write(project / "soup.yaml", project / "soup.lock", rows=True)
    for shard in shards:
        shard.write_text("".join(shard.read_text().splitlines(keepends=True)[1:]))
    read = Counter[bytes]()

    def counted(*args: Any, **kwargs: Any) -> Iterator[tuple[int, bytes]]:
        for number, line in jsonl.lines(*args, **kwargs):
            read[line] += 1
            yield number, line

    monkeypatch.setattr(locked_rows, "lines", counted)
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.explanation.startswith("−40 rows: data/shard-00.jsonl changed")
    assert max(read.values()) <= 3  # the passes over one file, whatever stands before it


def test_a_drift_is_told_without_digesting_the_data_again(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred gigabytes whose digests are known, one file moved."""
    monkeypatch.setattr("adapterbot.files.tree._SETTLED_NS", -(10**18))
    shards = [project / "data" / f"shard-{i}.jsonl" for i in range(3)]
    for shard in shards:
        shard.write_text('{"q": 1}\n')
    (project / "soup.yaml").write_text("base: ./base\ndata: {train: data/shard-*.jsonl}\n")
    cache = DigestCache(tmp_path_factory.mktemp("cache") / "digests.json")
    commands.write(project / "soup.yaml", project / "soup.lock", rows=True, cache=cache)
    shards[1].write_text('{"q": 1}\n{"q": 2}\n')
    digested: list[str] = []
    whole = WorkTree.sha256

    def noted(tree: WorkTree, path: str) -> str:
        digested.append(path)
        return whole(tree, path)

    monkeypatch.setattr(WorkTree, "sha256", noted)
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml", cache=cache))
    assert part.explanation == "+1 row: data/shard-1.jsonl changed"
    assert digested == ["data/shard-1.jsonl"]


def test_attack_kept_rows_without_a_line_end_are_not_held(project: Path) -> None:
    """The file comes with a pull request; what it would explain is then told without it."""
    data = project / "data" / "train.jsonl"
    data.write_text('{"q": 1}\n')
    commands.write(project / "soup.yaml", project / "soup.lock", rows=True)
    with (project / "soup.lock.d" / "rows.txt").open("ab") as kept:
        kept.write(b"0" * (1 << 20))
    data.write_text('{"q": 2}\n')
    (part,) = [
        part
        for part in commands.check(project / "soup.lock", project / "soup.yaml").parts
        if not part.ok
    ]
    assert part.explanation == "data/train.jsonl changed"


def test_training_settings_are_told_and_are_no_drift(project: Path) -> None:
    text = SOUP_YAML + "training:\n  lr: 1e-4\n  seed: 7\n  logging_steps: 5\noutput: ./out\n"
    (project / "soup.yaml").write_text(text)
    commands.write(project / "soup.yaml", project / "soup.lock")
    same = text.replace("1e-4", "0.0001").replace("./out", "./x").replace("steps: 5", "steps: 9")
    (project / "soup.yaml").write_text(same)
    assert commands.check(project / "soup.lock", project / "soup.yaml").note == ""
    (project / "soup.yaml").write_text(text.replace("seed: 7", "seed: 8"))
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    assert result.status == "ok"
    assert result.note == "training settings moved since the lock: training.seed 7 → 8"
    assert [(p.line, p.advisory) for p in result.parts if not p.ok] == [(8, True)]


def test_a_lock_that_predates_names_of_data_as_settings_holds(project: Path) -> None:
    """The mistake: an unchanged repository drifts as soon as adapterbot is updated."""
    (project / "data" / ".gitkeep").touch()
    text = "base: ./base\ndata:\n  train: ./data\n  columns: {output: answer}\n"
    (project / "soup.yaml").write_text(text)
    path, record = project / "soup.lock", project / "soup.lock.d" / "pinned.json"
    commands.write(project / "soup.yaml", path)
    now, made = sidecar.loads(record.read_bytes(), "it"), lock.loads(path.read_bytes(), "it")
    files = {**now.dataset, "data/.gitkeep": hashlib.sha256().hexdigest()}
    sha = combined(files)
    closure = lock.closure(made.base_model_sha, sha, made.env_hash)
    path.write_text(lock.dumps(replace(made, dataset_sha=sha, closure_sha=closure)))
    before = replace(now, closure_sha=closure, dataset=files, settings={"training.lr": "1"})
    record.write_text(sidecar.dumps(before))
    (project / "soup.yaml").write_text(text + "training: {lr: 1}\n")
    result = commands.check(path, project / "soup.yaml")
    assert (result.status, result.note) == ("ok", "")
    # It hides nothing that happened since.
    (project / "soup.yaml").write_text(text + "training: {lr: 2}\n")
    assert "training.lr 1 → 2" in commands.check(path, project / "soup.yaml").note
    (project / "data" / ".gitkeep").write_text("x")
    assert check(project) is LockStatus.DRIFT
    (project / "data" / ".gitkeep").write_text("")
    (project / "data" / "train.jsonl").write_text("{}\n")
    (part,) = [
        p for p in commands.check(path, project / "soup.yaml").parts if p.part == "dataset_sha"
    ]
    assert (part.ok, part.explanation) == (False, "data/train.jsonl changed")


@pytest.mark.parametrize("role", ["validation", "replay", "forget_set"])
def test_which_file_is_for_what_is_told(project: Path, role: str) -> None:
    """The same files give the same digest, however a change swaps what they are for: what is to be
    forgotten is then trained on."""
    (project / "data" / "other.jsonl").write_text('{"a": 3}\n')
    text = "base: ./base\ndata:\n  train: ./data/{}.jsonl\n  {}: ./data/{}.jsonl\n"
    (project / "soup.yaml").write_text(text.format("train", role, "other"))
    commands.write(project / "soup.yaml", project / "soup.lock")
    assert commands.check(project / "soup.lock", project / "soup.yaml").note == ""
    (project / "soup.yaml").write_text(text.format("other", role, "train"))
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    assert result.status == "ok"
    assert 'data.train "./data/train.jsonl" → "./data/other.jsonl"' in result.note
    assert f'data.{role} "./data/other.jsonl" → "./data/train.jsonl"' in result.note


@pytest.mark.parametrize("now", ["[b, a]", "[a, a, b]", "[a]"])
def test_order_and_repetition_of_the_data_are_told(project: Path, now: str) -> None:
    for name in ("a", "b"):
        (project / name).write_text("the same\n" if now == "[a]" else name)
    text = "base: ./base\ndata:\n  train: {}\n"
    (project / "soup.yaml").write_text(text.format("[a, b]"))
    commands.write(project / "soup.yaml", project / "soup.lock")
    (project / "soup.yaml").write_text(text.format(now))
    assert "data.train" in commands.check(project / "soup.lock", project / "soup.yaml").note


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("revision: 123456e789", "revision: 123457e789"),  # both beyond a float
        ('seed: "12345678901234567891"', 'seed: "12345678901234567892"'),
        # A column of that name, and not where the run writes to.
        ("  columns: {output: answer}", "  columns: {output: rejected}"),
    ],
)
def test_settings_that_look_alike_are_not_taken_for_one(
    project: Path, before: str, after: str
) -> None:
    (project / "soup.yaml").write_text(SOUP_YAML + before)
    commands.write(project / "soup.yaml", project / "soup.lock")
    (project / "soup.yaml").write_text(SOUP_YAML + after)
    note = commands.check(project / "soup.lock", project / "soup.yaml").note
    assert note.startswith("training settings moved")


def test_a_setting_of_any_length_is_read_again(project: Path) -> None:
    """A chat template, or a system prompt, written into soup.yaml."""
    text = f"{SOUP_YAML}  chat_template: {'x' * 5000}"
    (project / "soup.yaml").write_text(text)
    commands.write(project / "soup.yaml", project / "soup.lock")
    assert commands.check(project / "soup.lock", project / "soup.yaml").note == ""
    (project / "soup.yaml").write_text(f"{text}x")
    note = commands.check(project / "soup.lock", project / "soup.yaml").note
    assert "data.chat_template 5,002 characters" in note


def test_the_record_of_a_great_many_files_is_read_again(project: Path) -> None:
    """A folder of a quarter of a million images: written, and then refused by every check."""
    record = sidecar.loads((project / "soup.lock.d" / "pinned.json").read_bytes(), "it")
    many = replace(record, dataset={f"images/{n:07}.png": "0" * 64 for n in range(250_000)})
    (project / "soup.lock.d" / "pinned.json").write_text(sidecar.dumps(many))
    assert check(project) is LockStatus.OK
    (project / "adapters" / "dates" / "adapter_model.safetensors").write_bytes(b"x")
    assert check(project) is LockStatus.DRIFT


# ---------------------------------------------------------------- the adapter, and its record


def test_weights_that_are_not_the_locked_ones_are_a_drift(project: Path) -> None:
    (project / "adapters" / "dates" / "README.md").write_text("other notes")
    assert check(project) is LockStatus.OK
    (project / "adapters" / "dates" / "adapter_model.safetensors").write_bytes(bytes(63) + b"x")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.part == "adapter"
    assert part.explanation == (
        "these weights are not the ones that were locked: "
        "adapter_model.safetensors changed in adapters/dates"
    )
    other = lock.check(WorkTree(project), "soup.lock", "soup.yaml", adapter="adapters/other")
    assert other.status == "ok"


def test_an_adapter_at_the_root_is_as_any_other(project: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (project / "adapters" / "dates" / name).rename(project / name)
    commands.write(project / "soup.yaml", project / "soup.lock")
    before = project.parent / f"{project.name}-before"
    shutil.copytree(project, before)
    (project / "adapter_model.safetensors").write_bytes(b"x")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.file == "adapter_config.json"
    assert part.explanation.endswith("adapter_model.safetensors changed in .")
    shutil.rmtree(project / "soup.lock.d")
    tree, base = WorkTree(project), WorkTree(before)
    result = lock.check(tree, "soup.lock", "soup.yaml", before=base, adapter="")
    shutil.rmtree(before)
    assert [part.part for part in result.parts if not part.ok] == ["adapter"]


@pytest.mark.parametrize("how", ["removed", "stale", "emptied"])
def test_taking_the_record_away_does_not_hide_other_weights(project: Path, how: str) -> None:
    before = project.parent / f"{project.name}-before"
    shutil.copytree(project, before)
    record = project / "soup.lock.d" / "pinned.json"
    if how == "removed":
        record.unlink()
    elif how == "emptied":
        record.write_text(json.dumps({**json.loads(record.read_text()), "adapters": {}}))
    else:
        record.write_text(record.read_text().replace('"closure_sha": "', '"closure_sha": "0')[:-1])
        content = json.loads(record.read_text())
        record.write_text(json.dumps({**content, "closure_sha": "0" * 64}))
    (project / "adapters" / "dates" / "adapter_model.safetensors").write_bytes(b"x")
    result = lock.check(
        WorkTree(project),
        "soup.lock",
        "soup.yaml",
        before=WorkTree(before),
        adapter="adapters/dates",
    )
    assert result.status == "drift"
    assert [part.part for part in result.parts if not part.ok] == ["adapter"]
    shutil.rmtree(before)
    # Where no earlier state is known, it is no drift, but neither is it passed over.
    alone = commands.check(project / "soup.lock", project / "soup.yaml")
    assert alone.status == "ok"
    assert alone.note.startswith("weights not checked: soup.lock.d/pinned.json does not")


def test_a_record_that_is_gone_says_nothing_of_adapters_it_never_held(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In a project that is one folder of several: adapters are named from the repository's root."""
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(project, repository / "team")
    before = shutil.copytree(repository, tmp_path_factory.mktemp("before") / "tree")
    shutil.rmtree(repository / "team" / "soup.lock.d")
    for name, drifted in (("dates", ["adapter"]), ("other", [])):
        result = lock.check(
            WorkTree(repository),
            "team/soup.lock",
            "team/soup.yaml",
            before=WorkTree(before),
            adapter=f"team/adapters/{name}",
        )
        assert [part.part for part in result.parts if not part.ok] == drifted


def test_whose_weights_a_lock_is_of_is_told_in_a_folder_too(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = tmp_path_factory.mktemp("repository")
    team = shutil.copytree(project, repository / "team")
    (team / "adapters" / "mixture").mkdir()
    shutil.copytree(team / "adapters" / "dates", team / "adapters" / "other")

    def told(name: str) -> str | None:
        place = f"team/adapters/{name}"
        return other_weights(WorkTree(repository), "team/soup.lock", "team/soup.yaml", place)

    assert told("dates") is None
    assert told("mixture") is None
    assert "records team/adapters/dates alone" in (told("other") or "")
    (team / "adapters" / "dates" / "adapter_model.safetensors").write_bytes(b"x")
    assert "adapter_model.safetensors changed" in (told("dates") or "")
    shutil.rmtree(team / "soup.lock.d")
    assert [told(name) for name in ("dates", "mixture", "other")] == [None, None, None]


def test_a_branch_from_before_the_lock_is_not_said_to_have_removed_it(project: Path) -> None:
    """Only the base has it: merging this would leave weights beside a lock that is not theirs."""
    before = project.parent / f"{project.name}-before"
    shutil.copytree(project, before)
    shutil.rmtree(project / "soup.lock.d")
    (project / "soup.lock").unlink()
    base = WorkTree(before, label="1234567")
    result = lock.check(WorkTree(project), "soup.lock", "soup.yaml", before=base)
    assert (result.status, result.note) == ("drift", "soup.lock is not here, but 1234567 has it")
    # Where nobody has one the status says all; a comment said it twice in one line.
    never = lock.check(WorkTree(project), "soup.lock", "soup.yaml")
    assert (never.status, never.note) == ("missing", "")
    shutil.copy(before / "soup.lock", project)
    (project / "soup-env.lock").unlink()
    result = lock.check(WorkTree(project), "soup.lock", "soup.yaml", before=base)
    shutil.rmtree(before)
    part = drifted(result)
    assert part.explanation == "soup-env.lock is not here, but 1234567 has it"


def test_a_tree_that_the_lock_does_not_match_either_is_named(project: Path) -> None:
    before = project.parent / f"{project.name}-before"
    (project / "data" / "train.jsonl").write_text("{}")
    shutil.copytree(project, before)
    shutil.rmtree(project / "soup.lock.d")
    (project / "data" / "train.jsonl").write_text("[]")
    base = WorkTree(before, label="1234567")
    result = lock.check(WorkTree(project), "soup.lock", "soup.yaml", before=base)
    shutil.rmtree(before)
    part = drifted(result)
    assert part.explanation == "since 1234567 data/train.jsonl changed"


@pytest.mark.parametrize("locked", [b"\n", b"\r\n"])
def test_line_ends_that_a_checkout_changed_are_told_from_all_else(
    project: Path, locked: bytes
) -> None:
    """As `core.autocrlf` writes them on one machine, and not on the next."""
    places = ("base/config.json", "data/train.jsonl", "adapters/dates/adapter_config.json")

    other = {b"\n": b"\r\n", b"\r\n": b"\n"}[locked]

    def write(end: bytes, last: bytes) -> None:
        for name in places:
            # A piece that is read ends between the two bytes.
            text = b" " * (1024 * 1024 - 1) + end + b"{" + end + b"}" + last
            (project / name).write_bytes(text)

    write(locked, locked)
    commands.write(project / "soup.yaml", project / "soup.lock")
    write(other, other)
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    said = [part.explanation for part in result.parts if not part.ok]
    adapter = "adapter_config.json changed in its line ends only in adapters/dates"
    assert said == [
        "config.json changed in its line ends only",
        "data/train.jsonl changed in its line ends only",
        f"these weights are not the ones that were locked: {adapter}",
    ]
    write(locked, b"")
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    assert not any("line ends" in part.explanation for part in result.parts)


def test_a_base_elsewhere_on_this_machine_is_explained_by_its_files(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("elsewhere") / "base"
    (project / "base").rename(base)
    (project / "soup.yaml").write_text(SOUP_YAML.replace("./base", str(base)))
    commands.write(project / "soup.yaml", project / "soup.lock")
    (base / "config.json").write_text("{}")
    result = commands.check(project / "soup.lock", project / "soup.yaml")
    assert [p.explanation for p in result.parts if not p.ok] == ["config.json changed"]


def test_a_base_model_written_in_another_way_is_no_other(project: Path) -> None:
    (project / "soup.yaml").write_text(SOUP_YAML.replace("./base", "base/"))
    assert check(project) is LockStatus.OK


def test_a_submodules_link_to_its_repository_is_no_data(project: Path) -> None:
    """It names a folder of this machine: nobody else could have the same lock."""
    (project / "soup.yaml").write_text("base: ./base\ndata: {train: ./data}\n")
    commands.write(project / "soup.yaml", project / "soup.lock")
    (project / "data" / ".git").write_text("gitdir: /home/somebody/.git/modules/data\n")
    assert check(project) is LockStatus.OK


@pytest.mark.parametrize("data", ["/mnt/data/train.jsonl", "../elsewhere/train.jsonl", "./"])
def test_data_whose_hash_is_given_may_lie_anywhere(project: Path, data: str) -> None:
    """The mistake: what is not read was refused for where it lies, which is why it was given."""
    (project / "soup.yaml").write_text(f"base: ./base\ndata:\n  train: {data!r}\n")
    given = Given(dataset_sha="a" * 64)
    commands.write(project / "soup.yaml", project / "soup.lock", given=given)
    result = commands.check(project / "soup.lock", project / "soup.yaml", given=given)
    assert result.status == "ok"


@pytest.mark.parametrize("data", ["./", "./**/*.json*", "*.lock", "./x/../soup.lock.d"])
def test_a_lock_does_not_pin_itself(project: Path, data: str) -> None:
    """It would drift as soon as it is written."""
    (project / "soup.yaml").write_text(f"base: ./base\ndata:\n  train: {data!r}\n")
    with pytest.raises(InputError, match="which is no data") as caught:
        commands.write(project / "soup.yaml", project / "soup.lock")
    assert "data.train (line 3)" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version: is not 1"),
        ({"base": []}, "base: must be an object"),
        ({"dataset": {"a": "F" * 64}}, "dataset['a']: must be 64 lowercase hex"),
        ({"settings": {"a": "x\ny"}}, "settings['a']: holds a control character"),
        ({"settings": {"a": "x\x7fy"}}, "settings['a']: holds a control character"),
        ({"adapters": {"a": 1}}, "adapters['a']: must be an object"),
        ({"adapters": {"../../x": {}}}, "path leaves the repository"),
        ({"closure_sha": None}, "closure_sha: must be 64"),
    ],
)
def test_a_broken_record_names_its_field(
    project: Path, change: dict[str, object], says: str
) -> None:
    record = project / "soup.lock.d" / "pinned.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        check(project)
    assert says in str(caught.value)


def test_a_record_that_does_not_give_the_locked_hash_explains_nothing(project: Path) -> None:
    """Its list of files is the pull request's own; it must not put words into our mouth."""
    record = project / "soup.lock.d" / "pinned.json"
    content = json.loads(record.read_text())
    content["base"]["innocent.json"] = "0" * 64
    record.write_text(json.dumps(content))
    (project / "base" / "config.json").write_text("{}")
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert part.explanation == "the files are not the ones that were locked"


# ---------------------------------------------------------------- hashes by hand


def test_hashes_by_hand_alone_or_in_the_place_of_one(project: Path, tmp_path: Path) -> None:
    alone = Given("org/model", "a" * 64, "b" * 64, "c" * 64)
    made = commands.write(tmp_path / "none.yaml", tmp_path / "x" / "soup.lock", given=alone)
    assert made.closure_sha == CLOSURE
    computed = commands.read(project / "soup.lock")
    shutil.copytree(project / "base", project / "twin")
    for field in ("base_model", "base_model_sha", "dataset_sha", "env_hash"):
        value = "./twin" if field == "base_model" else "d" * 64
        made = commands.write(
            project / "soup.yaml", project / "other.lock", given=Given(**{field: value})
        )
        differs = {
            name
            for name in ("base_model", "base_model_sha", "dataset_sha", "env_hash")
            if getattr(made, name) != getattr(computed, name)
        }
        assert differs == {field}
        found = commands.check(
            project / "soup.lock", project / "soup.yaml", given=Given(**{field: value})
        )
        assert [part.part for part in found.parts if not part.ok] == [field]


# ---------------------------------------------------------------- the project's own lock file


def test_an_environment_made_from_a_lock_file_follows_it(project: Path) -> None:
    (project / "uv.lock").write_text('[[package]]\nname = "transformers"\nversion = "5.22.0"\n')
    commands.write_environment(project / "soup-env.lock", project / "uv.lock")
    commands.write(project / "soup.yaml", project / "soup.lock")
    assert check(project) is LockStatus.OK
    (project / "uv.lock").write_text('[[package]]\nname = "transformers"\nversion = "5.23.0"\n')
    part = drifted(commands.check(project / "soup.lock", project / "soup.yaml"))
    assert (part.part, part.explanation) == ("env_hash", "uv.lock: transformers 5.22.0 → 5.23.0")
    (project / "uv.lock").unlink()
    with pytest.raises(InputError, match=r"uv.lock: does not exist"):
        check(project)
