"""What the doctor says of a machine, whatever that machine tells it."""

from __future__ import annotations

import os
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
