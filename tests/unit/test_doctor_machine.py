"""What the doctor says of a machine, whatever that machine tells it."""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from adapterbot.doctor import Status, machine


def test_a_system_that_does_not_tell_its_memory_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS knows no `SC_AVPHYS_PAGES`, and has neither /proc nor cgroups."""

    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    def missing(path: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "sysconf", unknown)
    monkeypatch.setattr(Path, "read_text", missing)
    found = machine._memory()
    assert (found.what, found.status) == ("memory", Status.OK)
    assert "unknown" in found.found


def test_a_machine_without_room_for_temporary_files_lacks_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert machine._temporary().status is Status.OK
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    found = machine._temporary()
    assert (found.status, "TMPDIR" in found.fix) == (Status.MISSING, True)


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ("4.57.6", (Status.MISSING, "4.57.6, older than 5.0")),
        ("5.0.0rc1", (Status.OK, "5.0.0rc1")),
        ("10.1", (Status.OK, "10.1")),
    ],
)
def test_a_package_that_is_too_old_is_missing(
    monkeypatch: pytest.MonkeyPatch, here: str, told: tuple[Status, str]
) -> None:
    needs = ["jinja2>=3.1", 'transformers>=5.0; extra == "eval"']
    monkeypatch.setattr(metadata, "version", lambda _: here)
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    found = machine._package("transformers", "pip install", needed=True)
    assert (found.status, found.found) == told
