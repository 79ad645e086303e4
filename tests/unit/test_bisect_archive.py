"""Where checkpoints are kept: their order, Git histories, and the cache of what was fetched."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from adapterbot.bisect import Archive, named_checkpoints, stores
from adapterbot.bisect.checkpoints import global_step
from adapterbot.bisect.fetched import FetchedDirectories
from adapterbot.errors import InputError, OurFailure
from adapterbot.files.tree import WorkTree
from adapterbot.git.tree import GitTree
from tests.example import EXAMPLE, commit, git

ADAPTERS = EXAMPLE / "history" / "poisoned"


def checkpoint(place: Path, marker: str = "", step: int | None = None) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (place / "adapter_model.safetensors").write_text(marker)
    if step is not None:
        (place / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def archive(root: Path, tree=None) -> Archive:
    return Archive(tree or WorkTree(root), root / ".cache")


# ---------------------------------------------------------------- the order


def test_steps_decide_where_names_say_nothing(tmp_path: Path) -> None:
    for name, step in (("apple", 300), ("pear", 100), ("plum", 200)):
        checkpoint(tmp_path / "run" / name, step=step)
    found = archive(tmp_path).find(["run"])
    assert [(c.label, c.step) for c in found] == [("pear", 100), ("plum", 200), ("apple", 300)]
    stored = archive(tmp_path).find([f"file://{tmp_path}/run/*"])
    assert [(c.label, c.step) for c in stored] == [("pear", 100), ("plum", 200), ("apple", 300)]


def test_a_trainers_state_is_read_once_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (30, 10, 20):
        checkpoint(tmp_path / "run" / f"checkpoint-{step}", step=step)
    read: list[str] = []

    def noted(content: bytes, name: str) -> int | None:
        read.append(name)
        return global_step(content, name)

    monkeypatch.setattr("adapterbot.bisect.archive.global_step", noted)
    found = named_checkpoints(["run/*"], tmp_path)
    assert [c.step for c in found] == [10, 20, 30]
    assert len(read) == 3


def test_a_link_that_leads_back_to_itself_is_left_to_the_command(tmp_path: Path) -> None:
    checkpoint(tmp_path / "one")
    (tmp_path / "two").symlink_to("two")
    assert [c.path for c in named_checkpoints(["one", "two"], tmp_path)] == ["one", "two"]


def test_what_may_not_be_looked_at_is_not_said_to_be_missing(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    checkpoint(locked / "one")
    checkpoint(locked / "two")
    locked.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            named_checkpoints(["locked/one", "locked/two"], tmp_path)
    finally:
        os.seteuid(user)
        locked.chmod(0o755)


def test_numbers_in_names_decide_without_reading_a_state(tmp_path: Path) -> None:
    for step in (900, 1000, 20):
        checkpoint(tmp_path / "run" / f"checkpoint-{step}")
    url = f"file://{tmp_path}/run"
    assert [c.label for c in archive(tmp_path).find([url])] == [
        "checkpoint-20",
        "checkpoint-900",
        "checkpoint-1000",
    ]


def test_checkpoints_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for run in ("a-1", "a-2"):
        checkpoint(tmp_path / run / "adapter")
    assert [c.label for c in archive(tmp_path).find(["*/adapter"])] == [
        "a-1/adapter",
        "a-2/adapter",
    ]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["git:run/x", "git:run/x"], "is named twice"),
        (["file://{root}/nowhere"], "holds no adapter directory"),
        (["file://{root}/run/x"], "one checkpoint"),
        (["s3://key:secret@bucket/run"], "holds a user or a password"),
        (["git:../outside"], "leaves the repository"),
        (["git:run/x@no-such-tag"], "no-such-tag"),
        (["git:nowhere"], "no checkpoint"),
    ],
)
def test_bad_archives(tmp_path: Path, named: list[str], message: str) -> None:
    git_repository(tmp_path)
    with pytest.raises(InputError) as error:
        archive(tmp_path).find([one.format(root=tmp_path) for one in named])
    assert message in str(error.value)
    assert "secret" not in str(error.value)


def test_an_unknown_store_is_no_fault_of_the_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(OurFailure, match="nosuch"):
        archive(tmp_path).find(["nosuch://bucket/run"])


def test_a_checkpoint_of_one_letter_is_no_two(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    for named in (["a", "a"], ["a", "b", "./a"], ["a", "?"]):
        with pytest.raises(InputError, match="is named twice"):
            named_checkpoints(named, tmp_path)


# ---------------------------------------------------------------- Git


def git_repository(root: Path) -> list[str]:
    """An adapter that changed three times, a note that changed between, and a merged branch."""
    git(root, "init", "-q", "-b", "main")
    hashes: list[str] = []

    def commit(marker: str | None) -> None:
        if marker is None:
            (root / "run" / "x" / "README.md").write_text(str(len(hashes)))
        else:
            checkpoint(root / "run" / "x", marker)
        git(root, "add", "run")
        git(root, "commit", "-q", "-m", "change")
        if marker is not None:
            hashes.append(git(root, "rev-parse", "HEAD"))

    commit("one")
    commit(None)
    commit("two")
    git(root, "switch", "-q", "-c", "side")
    commit("half")
    commit("three")
    git(root, "switch", "-q", "main")
    git(root, "merge", "-q", "--no-ff", "-m", "merge", "side")
    return [*hashes[:2], git(root, "rev-parse", "HEAD")]


def test_git_history_is_every_commit_that_changed_the_adapter(tmp_path: Path) -> None:
    hashes = git_repository(tmp_path)
    for tree in (WorkTree(tmp_path), GitTree(tmp_path, hashes[-1])):
        here = archive(tmp_path, tree)
        found = here.find(["git:run/x"])
        assert [c.path for c in found] == [f"git:run/x@{one}" for one in hashes]
        contents = []
        for one in found:
            with here.opened(one) as path:
                contents.append((path / "adapter_model.safetensors").read_text())
        assert contents == ["one", "two", "three"]
    early = archive(tmp_path, GitTree(tmp_path, hashes[1])).find(["git:run/x"])
    assert [c.label for c in early] == [one[:9] for one in hashes[:2]]


def test_an_adapter_may_be_the_whole_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for marker in ("one", "two"):
        checkpoint(tmp_path, marker)
        commit(tmp_path)
    here = archive(tmp_path)
    found = here.find(["git:."])
    assert len(found) == 2
    with here.opened(found[0]) as path:
        assert (path / "adapter_model.safetensors").read_text() == "one"


def test_git_history_from_a_revision_on(tmp_path: Path) -> None:
    hashes = git_repository(tmp_path)
    git(tmp_path, "tag", "good", hashes[1])
    found = archive(tmp_path).find(["git:run/x@good"])
    assert [c.path for c in found] == [f"git:run/x@{one}" for one in hashes[1:]]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_clone_says_so(tmp_path: Path, depth: int) -> None:
    """Where the clone is cut off, the oldest checkpoint would be "broken already"."""
    (tmp_path / "origin").mkdir()
    hashes = git_repository(tmp_path / "origin")
    url = f"file://{tmp_path}/origin"
    git(tmp_path, "clone", "-q", f"--depth={depth}", url, str(tmp_path / "clone"))
    here = archive(tmp_path / "clone")
    with pytest.raises(InputError, match="shallow"):
        here.find(["git:run/x"])
    if depth > 1:
        assert len(here.find([f"git:run/x@{hashes[1]}"])) == 2


def test_lfs_pointers_are_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for text in ("one", "two"):
        oid = hashlib.sha256(text.encode()).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 3\n"
        checkpoint(tmp_path / "x", pointer)
        commit(tmp_path, text)
    here = archive(tmp_path)
    first, _ = here.find(["git:x"])
    with pytest.raises(InputError, match="is a Git LFS pointer") as error, here.opened(first):
        pass
    assert f"git lfs fetch origin {first.path.rpartition('@')[2][:12]}" in str(error.value)
    stored = tmp_path / ".git" / "lfs" / "objects"
    oid = hashlib.sha256(b"one").hexdigest()
    (stored / oid[:2] / oid[2:4]).mkdir(parents=True, exist_ok=True)
    (stored / oid[:2] / oid[2:4] / oid).write_text("one")
    with here.opened(first) as path:
        assert (path / "adapter_model.safetensors").read_text() == "one"


# ---------------------------------------------------------------- stores


def test_a_pickle_is_refused_and_nothing_else_is_fetched(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint(tmp_path / "run" / f"c-{step}")
    (tmp_path / "run" / "c-1" / "adapter_model.safetensors").rename(
        tmp_path / "run" / "c-1" / "adapter_model.bin"
    )
    here = archive(tmp_path)
    first, second = here.find([f"file://{tmp_path}/run"])
    with pytest.raises(InputError, match="pickle"), here.opened(first):
        pass
    with here.opened(second) as path:
        assert sorted(file.name for file in path.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]


def test_what_is_larger_than_the_cache_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run" / "c-1", "x" * 5000)
    cache = FetchedDirectories(tmp_path / "cache", limit=4000)
    (found,) = stores.find(f"file://{tmp_path}/run")
    with pytest.raises(InputError, match="5,000 bytes"), stores.opened(found, cache):
        pass
    assert not list((tmp_path / "cache").glob("*"))


# ---------------------------------------------------------------- the cache


class Source:
    """Fills directories, and counts how often it had to."""

    def __init__(self, size: int = 10) -> None:
        self.filled: list[str] = []
        self._size = size

    def __call__(self, key: str):
        def fill(folder: Path) -> None:
            self.filled.append(key)
            (folder / "weights").write_bytes(key.encode() * self._size)

        return fill


def look(cache: FetchedDirectories, source: Source, key: str) -> bytes:
    with cache.opened(key, source(key)) as folder:
        return (folder / "weights").read_bytes()


def test_the_same_content_is_fetched_once_and_damage_again(tmp_path: Path) -> None:
    cache, source = FetchedDirectories(tmp_path), Source()
    assert look(cache, source, "a") == look(cache, source, "a") == b"a" * 10
    assert source.filled == ["a"]
    (file,) = tmp_path.glob("*/files/weights")
    file.write_bytes(b"a" * 9 + b"b")
    assert look(cache, source, "a") == b"a" * 10
    assert source.filled == ["a", "a"]
    (file.parent / "more").write_text("put there by somebody")
    assert look(cache, source, "a") == b"a" * 10
    assert not (file.parent / "more").exists()


def test_what_was_used_longest_ago_goes_first_and_nothing_in_use(tmp_path: Path) -> None:
    cache, source = FetchedDirectories(tmp_path, limit=3500), Source(size=1000)
    for key in "abc":
        look(cache, source, key)
        for entry in tmp_path.iterdir():
            os.utime(entry, (entry.stat().st_mtime - 10, entry.stat().st_mtime - 10))
    with cache.opened("a", source("a")) as held:
        look(cache, source, "d")
        assert (held / "weights").read_bytes() == b"a" * 1000
    look(cache, source, "a")
    look(cache, source, "c")
    assert source.filled == ["a", "b", "c", "d"]
    look(cache, source, "b")
    assert source.filled == ["a", "b", "c", "d", "b"]


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OurFailure("the line went dead")

    cache = FetchedDirectories(tmp_path)
    with pytest.raises(OurFailure, match="dead"), cache.opened("a", fill):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    old, young = tmp_path / "new-old", tmp_path / "new-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 10_000, time.time() - 10_000))
    look(FetchedDirectories(tmp_path), Source(), "a")
    assert not old.exists()
    assert young.exists()


def _reads(root: str, seed: int, failures) -> None:
    cache, source = FetchedDirectories(Path(root), limit=2500), Source(size=1000)
    for turn in range(60):
        key = "abcd"[(turn * (seed + 1)) % 4]
        with cache.opened(key, source(key)) as folder:
            time.sleep(0.001)
            if (folder / "weights").read_bytes() != key.encode() * 1000:
                failures.put(key)


def test_two_processes_never_take_each_others_files_away(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    workers = [
        context.Process(target=_reads, args=(str(tmp_path), seed, failures)) for seed in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert failures.empty()
    kept = [entry for entry in tmp_path.iterdir() if not entry.name.startswith(("new-", "gone-"))]
    assert 1 <= len(kept) <= 3
