"""The lock: Soup's format and closure, digests anyone can recompute, drift that is explained."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterbot import lock
from adapterbot.commands import lock as commands
from adapterbot.errors import InputError
from adapterbot.lock import environment
from adapterbot.lock.hashing import combined
from adapterbot.records import LockStatus
from adapterbot.tree import WorkTree

CLOSURE = "b20dd8bdd812e18599a5f4b49437265f5ef51619181f1b0f6f57775bf1fbae60"
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
    commands.write_environment(tmp_path / "soup-env.lock")
    commands.write(tmp_path / "soup.yaml", tmp_path / "soup.lock")
    return tmp_path


def check(project: Path) -> LockStatus:
    return commands.check(project / "soup.lock", project / "soup.yaml").record().status


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


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_byte_changed_in_any_locked_file_is_a_drift(project: Path, data: st.DataObject) -> None:
    names = ["base/config.json", "base/model.safetensors", "data/train.jsonl"]
    path = project / data.draw(st.sampled_from(names))
    before = path.read_bytes()
    index = data.draw(st.integers(0, len(before) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda value: value != before[index]))
    path.write_bytes(before[:index] + bytes([changed]) + before[index + 1 :])
    try:
        assert check(project) is LockStatus.DRIFT
    finally:
        path.write_bytes(before)
    assert check(project) is LockStatus.OK


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
    result = lock.check(tree, "soup.lock", "soup.yaml", before=tree)
    (part,) = [part for part in result.parts if not part.ok]
    assert (part.part, part.file, part.line) == ("dataset_sha", "soup.yaml", 4)
    assert part.explanation == "data/train.jsonl changed"
    for file in (project / "soup.lock.d").iterdir():
        file.unlink()
    result = lock.check(tree, "soup.lock", "soup.yaml", before=tree)
    (part,) = [part for part in result.parts if not part.ok]
    assert part.explanation == "the lock was not written from these files"


def test_files_that_moved_since_the_base_are_listed(project: Path, tmp_path: Path) -> None:
    import shutil

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
    numpy = next(entry.version for entry in old.entries if entry.name == "numpy")
    assert environment.explain(environment.facts(old), environment.facts(new)) == (
        f"numpy {numpy} → 0.0.1",
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


def test_a_lock_check_imports_neither_torch_nor_pygithub(project: Path) -> None:
    code = (
        "import sys\n"
        "from adapterbot.cli import main\n"
        "try: main(['lock', 'check', 'soup.lock'])\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'github', 'transformers', 'peft', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True)
