"""Programs of which a test needs no more than that they are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def git_lfs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `git-lfs` that is found first, in `folder`/bin, and does nothing."""
    program = folder / "bin" / "git-lfs"
    program.parent.mkdir(exist_ok=True)
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
