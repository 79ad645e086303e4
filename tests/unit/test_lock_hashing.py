"""Hashing: whatever the order and the number of threads, and whatever becomes of the cache."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterbot.errors import InputError
from adapterbot.eval.base_files import base_digest
from adapterbot.files.tree import WorkTree, stamp
from adapterbot.lock.digest_cache import DigestCache, default_path
from adapterbot.lock.hashing import combined, hash_files
from tests.programs import python

LONG_AGO = 1_600_000_000


def write(path: Path, content: bytes, when: int = LONG_AGO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose clock ticks finely, so that no test has to wait for it."""
    monkeypatch.setattr("adapterbot.files.tree._SETTLED_NS", -(10**18))


@settings(max_examples=15)
@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.binary(max_size=50)),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
)
def test_neither_order_nor_workers_change_a_digest(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    random: object,
    workers: int,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name, content in files.items():
        write(folder / name, content)
    names = list(files)
    random.shuffle(names)  # type: ignore[attr-defined]
    found = hash_files(WorkTree(folder), names, workers=workers)
    assert list(found) == names
    assert found == {name: hashlib.sha256(files[name]).hexdigest() for name in names}
    assert combined(found) == combined(dict(sorted(found.items())))


def test_however_many_workers_no_file_is_read_twice(tmp_path: Path) -> None:
    read: list[str] = []

    class Counted(WorkTree):
        def sha256(self, path: str) -> str:
            read.append(path)
            return hashlib.sha256(path.encode()).hexdigest()

    names = [f"{index:03}" for index in range(300)]
    for workers in (1, 4):
        assert list(hash_files(Counted(tmp_path), names * 2, workers=workers)) == names
        assert sorted(read) == names
        read.clear()


def test_a_digest_is_taken_from_the_cache_until_the_file_moves(
    tmp_path: Path, settled: None
) -> None:
    tree, where = WorkTree(tmp_path), tmp_path / "cache" / "digests.json"
    write(tmp_path / "a", b"one")
    first = hash_files(tree, ["a"], cache := DigestCache(where))
    cache.save()
    identity = tree.identity("a")
    assert DigestCache(where).get(identity) == first["a"]
    # A cache that was told otherwise is believed: it is not hashed again.
    lying = DigestCache(where)
    lying.put(identity, "f" * 64)
    assert hash_files(tree, ["a"], lying) == {"a": "f" * 64}
    # Same size, same inode, same modification time, put back by hand: the change time tells.
    write(tmp_path / "a", b"two")
    assert hash_files(tree, ["a"], lying)["a"] == hashlib.sha256(b"two").hexdigest()
    write(tmp_path / "a", b"longer")
    assert hash_files(tree, ["a"], lying)["a"] == hashlib.sha256(b"longer").hexdigest()
    (tmp_path / "b").write_bytes(b"LONGER")
    (tmp_path / "b").replace(tmp_path / "a")
    assert hash_files(tree, ["a"], lying)["a"] == hashlib.sha256(b"LONGER").hexdigest()


def test_a_file_that_was_just_written_is_not_cached(tmp_path: Path) -> None:
    """Two writes within one tick of the clock would look the same."""
    (tmp_path / "a").write_bytes(b"one")
    assert stamp(tmp_path / "a") is None
    cache = DigestCache(tmp_path / "digests.json")
    for content in (b"one", b"two"):
        (tmp_path / "a").write_bytes(content)
        found = hash_files(WorkTree(tmp_path), ["a"], cache)
        assert found["a"] == hashlib.sha256(content).hexdigest()
    cache.save()
    assert not (tmp_path / "digests.json").exists()


def test_one_process_reads_a_file_once_until_it_moves(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's gigabytes: locked for every adapter, and digested when they are loaded."""
    model = tmp_path / "base" / "model.safetensors"
    write(model, b"one")
    read: list[str] = []

    def digest(stream: BinaryIO, name: str) -> Any:
        read.append(stream.name)
        return hashlib.new(name, stream.read())

    monkeypatch.setattr(hashlib, "file_digest", digest)
    tree = WorkTree(tmp_path)
    for content in (b"one", b"two"):
        write(model, content)
        expected = hashlib.sha256(content).hexdigest()
        assert {tree.sha256("base/model.safetensors") for _ in range(3)} == {expected}
        before = base_digest(tmp_path / "base")
        assert before == base_digest(tmp_path / "base")
    assert read == [str(model)] * 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "directory", "nested"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, settled: None, damage: str) -> None:
    where = tmp_path / "cache" / "digests.json"
    tree = WorkTree(tmp_path)
    write(tmp_path / "a", b"one")
    hash_files(tree, ["a"], cache := DigestCache(where))
    cache.save()
    whole = where.read_bytes()
    if damage == "directory":
        where.unlink()
        where.mkdir()
    else:
        flipped = whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:]
        contents = {"cut": whole[:-9], "flip": flipped, "empty": b"", "text": b"\xff not ours"}
        where.write_bytes(contents.get(damage, b"[" * 100_000))
    again = DigestCache(where)
    assert hash_files(tree, ["a"], again)["a"] == hashlib.sha256(b"one").hexdigest()
    again.save()
    if damage != "directory":
        assert where.read_bytes() == whole


def test_two_processes_save_side_by_side(tmp_path: Path, settled: None) -> None:
    where, tree = tmp_path / "digests.json", WorkTree(tmp_path)
    caches = [DigestCache(where), DigestCache(where)]
    for name, cache in zip("ab", caches, strict=True):
        write(tmp_path / name, name.encode())
        hash_files(tree, [name], cache)
    for cache in caches:
        cache.save()
    found = DigestCache(where)
    assert all(found.get(tree.identity(name)) for name in "ab")


def test_the_cache_has_a_place_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTERBOT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_path() == Path("/somewhere/adapterbot/digests.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == Path("/home/me/.cache/adapterbot/digests.json")


def test_a_file_that_changes_while_it_is_hashed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    with path.open("wb") as stream:
        stream.truncate(64 << 20)
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with path.open("ab") as stream:
                stream.write(b"row\n")
            time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(InputError, match="growing: changed while it was being read"):
            hash_files(WorkTree(tmp_path), ["growing"])
    finally:
        stop.set()
        writer.join()


def test_what_may_not_be_read_is_named_and_never_passed_over(tmp_path: Path) -> None:
    """As a user who may not read it, also where the tests run as root."""
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "data" / "closed").mkdir(parents=True)
    (tmp_path / "data" / "closed" / "row.jsonl").write_bytes(b"{}")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "data" / "closed").chmod(0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom adapterbot.errors import InputError\n"
        "from adapterbot.lock.hashing import hash_files\n"
        "from adapterbot.files.tree import WorkTree\nimport os\n"
        "tree = WorkTree(Path('.'))\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "for look in (lambda: hash_files(tree, ['secret']), lambda: tree.files('data'),\n"
        "        lambda: tree.has('data/closed'), lambda: tree.has('data/closed/row.jsonl')):\n"
        "    try: look()\n"
        "    except InputError as error: print(error)\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o555)
    try:
        done = python("-c", code, cwd=tmp_path, check=True)
    finally:
        (tmp_path / "data" / "closed").chmod(0o755)
    paths = ("secret", "data/closed", "data/closed", "data/closed/row.jsonl")
    assert done.stdout == "".join(f"{path}: cannot be read (make it readable)\n" for path in paths)


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    tree = WorkTree(tmp_path)
    with pytest.raises(InputError, match="folder: is a directory"):
        tree.sha256("folder")
    with pytest.raises(InputError, match="pipe: is not a regular file"):
        tree.sha256("pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="link: is a symbolic link"):
        tree.sha256("link")
