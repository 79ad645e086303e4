"""What the gate costs besides evaluating and importing torch, on the example.

A whole run as on a runner: a process of its own, an event, a comment posted to a local server. The
stages time themselves; what no stage covers (starting Python, reading the event) is "start".
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, median
from tests import example
from tests.github_server import GitHubServer

RUNS = 3
TARGET_SECONDS = 2.0
NOT_OVERHEAD = ("import", "evaluate", "bisect")


def one_run(repository: Path, server: GitHubServer, place: Path) -> dict[str, float]:
    """Seconds by stage of one gate with a cold score cache."""
    payload = example.pull_request(repository)
    environment = {
        **os.environ,
        **example.runner_environment(place, "pull_request", payload, server.url),
        "ADAPTERBOT_CACHE": str(place / "scores"),
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "adapterbot", "gate"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.monotonic() - started
    if done.returncode != 3:
        raise SystemExit(done.stderr)
    stages = {
        name: float(s) for name, s in re.findall(r"^(\w+): ([\d.]+) s$", done.stderr, re.MULTILINE)
    }
    stages["start"] = wall - sum(stages.values())
    return stages


def measure() -> list[Figure]:
    """The split, as medians of a few runs."""
    with tempfile.TemporaryDirectory() as folder, GitHubServer() as server:
        server.add_token("t0ken")
        server.add_pull(example.REPOSITORY, example.NUMBER)
        repository = example.build(Path(folder) / "repository")
        runs = [one_run(repository, server, Path(folder) / str(i)) for i in range(RUNS)]
    split = {name: median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    overhead = sum(s for name, s in split.items() if name not in NOT_OVERHEAD)
    shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in split.items())
    return [
        Figure(
            name="gate: overhead besides evaluation and import of torch",
            setting=f"examples/tiny, 600 samples and a bisect; seconds by stage: {shown}",
            ours=f"{overhead:.2f} s",
            other=f"target ≤ {TARGET_SECONDS:.0f} s",
            ratio=overhead / TARGET_SECONDS,
        )
    ]
