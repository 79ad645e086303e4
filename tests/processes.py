"""What became of a process that a test does not own."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc").exists(), reason="a system without /proc")


def alive(pid: int) -> bool:
    """Whether it runs: what has ended may be there still, where nobody reaps it."""
    if not Path("/proc").exists():
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
