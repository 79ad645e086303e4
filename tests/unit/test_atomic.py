"""A file is wholly there or not at all, also when the writer is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterbot.errors import InputError, OurFailure
from adapterbot.files.atomic import try_folder, write_all, write_bytes, write_parts, write_text
from tests.processes import needs_proc

LOOP = """
import sys
from pathlib import Path
from adapterbot.files.atomic import write_bytes
while True:
    for letter in (b"a", b"b"):
        write_bytes(Path(sys.argv[1]), letter * 200_000)
"""


def test_kill_9_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "lock"
    write_bytes(target, b"a" * 200_000)
    for delay in (0.3, 0.35, 0.4):
        process = subprocess.Popen([sys.executable, "-c", LOOP, str(target)])
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        content = target.read_bytes()
        assert content in (b"a" * 200_000, b"b" * 200_000)


@needs_proc
def test_names_are_on_the_disk_when_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut gave a file that was replaced its old content again."""
    kept, fsync = {}, os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            kept[str(Path(f"/proc/self/fd/{handle}").readlink())] = {
                path.name: path.read_bytes() for path in tmp_path.glob("*/*")
            }

    monkeypatch.setattr(os, "fsync", noted)
    write_all({tmp_path / "a" / "x": b"1", tmp_path / "a" / "y": b"2", tmp_path / "b" / "z": b"3"})
    all_of_them = {"x": b"1", "y": b"2", "z": b"3"}
    assert kept == {str(tmp_path / name): all_of_them for name in "ab"}


def test_folders_are_made_and_the_mode_is_the_usual_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "ü")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ü".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_writing_never_changes_the_mode_of_what_other_threads_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umask is the whole process's: without it, what they make is writable for everybody."""

    def changed(_: int) -> int:
        raise AssertionError("the umask was changed")

    monkeypatch.setattr(os, "umask", changed)
    write_text(tmp_path / "lock", "text")


def test_what_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(InputError, match="is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(InputError, match="symbolic link"):
        write_text(tmp_path / "link", "x")
    with pytest.raises(InputError, match=r"cannot be written: (Not a directory|File exists)"):
        write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        write_text(tmp_path / ("x" * 300), "x")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(Path("/proc/nothing/below"), "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """A super-user could: `-o /dev/null` would leave the machine without it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a device or a pipe"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_tried_and_nothing_stays_in_it(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a" / "b"):
        try_folder(folder)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "written").mkdir()  # what is there already stands in nobody's way
    try_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"^[^:]*/file: cannot be written"):
        try_folder(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        try_folder(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="cannot be written"):
        try_folder(Path("/proc/nothing"))


def test_a_disk_that_is_full_before_the_first_byte_is_our_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OurFailure, match="No space left"):
        try_folder(tmp_path)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "lock"
    write_text(target, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OurFailure, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_parts_that_end_early_keep_the_old_file(tmp_path: Path) -> None:
    """A damaged row that is found when half of a bank is written."""
    file = tmp_path / "file"
    write_bytes(file, b"old")

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise OurFailure("damaged", fix="restore it")

    with pytest.raises(OurFailure, match="damaged"):
        write_parts(file, parts())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_parts(file, (b"new", memoryview(b" and whole")))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new and whole"]
