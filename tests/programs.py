"""Programs that tests start, or need no more of than that they are there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest


def python(
    *arguments: object, env: Mapping[str, str] | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A Python of its own, and what it said.

    Args:
        env: on top of this process's.
        options: as of `subprocess.run`.
    """
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        command, env=environment, check=check, capture_output=True, text=True, **options
    )


def git_lfs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `git-lfs` that is found first, in `folder`/bin, and does nothing."""
    program = folder / "bin" / "git-lfs"
    program.parent.mkdir(exist_ok=True)
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
