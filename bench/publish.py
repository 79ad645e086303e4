"""How soon `adapterbot publish` talks to GitHub, and how much of a processor the whole of it takes.

A process of its own, started cold, with an event and a report of a regression, against a local
server; nothing to evaluate, no torch. "Cold start" ends with the first request that arrives. The
measure beside it is the import of PyGithub alone in the same Python, which any client pays; the
processor's seconds are what a busy machine does not stretch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from adapterbot.records import Source
from bench.figures import Figure, children, median
from tests.github_server import Fault, GitHubServer
from tests.golden.reports import REPORTS

RUNS = 7
TARGET_SECONDS = 1.5
REPOSITORY, NUMBER, HEAD = "acme/adapters", 7, "c" * 40


def one_run(server: GitHubServer, place: Path) -> tuple[float, float]:
    """Seconds to the first request, and of a processor for the whole."""
    arrived: list[float] = []

    def note(_method: str, _path: str) -> Fault | None:
        arrived.append(time.monotonic())
        return None

    server.chaos = note
    pull = {
        "number": NUMBER,
        "base": {"ref": "main", "sha": "a" * 40, "repo": {"full_name": REPOSITORY}},
        "head": {"ref": "better", "sha": HEAD, "repo": {"full_name": REPOSITORY}},
    }
    event = {"action": "opened", "pull_request": pull, "repository": {"full_name": REPOSITORY}}
    (place / "event.json").write_text(json.dumps(event))
    source = Source(repository=REPOSITORY, pull_request=NUMBER, head_sha=HEAD)
    report = REPORTS["regressed"]().model_copy(update={"source": source})
    (place / "report.json").write_text(report.model_dump_json())
    environment = {
        **os.environ,
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(place / "event.json"),
        "GITHUB_API_URL": server.url,
        "GITHUB_TOKEN": "t0ken",
        "RUNNER_TEMP": str(place),
    }
    command = [sys.executable, "-I", "-m", "adapterbot", "publish", "--report"]
    before, started = children(), time.monotonic()
    done = subprocess.run(
        [*command, str(place / "report.json"), "--json"],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 3:
        raise SystemExit(done.stderr)
    return arrived[0] - started, children() - before


def bare_import() -> float:
    """Seconds of a Python that imports PyGithub and ends."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", "import github"], check=True)
    return time.monotonic() - started


def measure() -> list[Figure]:
    """Medians over a few runs, ours and the import in turns."""
    starts: list[float] = []
    wholes: list[float] = []
    imports: list[float] = []
    with tempfile.TemporaryDirectory() as folder, GitHubServer() as server:
        server.add_token("t0ken")
        for index in range(RUNS + 1):
            # A pull request without a comment each time: the longest way.
            server.world.all_comments.clear()
            server.add_pull(REPOSITORY, NUMBER, head_sha=HEAD)
            place = Path(folder) / str(index)
            place.mkdir()
            start, whole = one_run(server, place)
            alone = bare_import()
            if index:  # the first run only warms the disk's cache
                starts.append(start)
                wholes.append(whole)
                imports.append(alone)
        requests = len(server.requests) // (RUNS + 1)
    setting = f"a report of a regression, {requests} requests to a local server, median of {RUNS}"
    return [
        Figure(
            name="publish: cold start to the first request",
            setting=f"{setting}; `import github` alone takes {median(imports):.2f} s",
            ours=f"{median(starts):.2f} s",
            other=f"target ≤ {TARGET_SECONDS} s",
            ratio=median(starts) / TARGET_SECONDS,
        ),
        Figure(
            name="publish: processor time of the whole command",
            setting=setting,
            ours=f"{median(wholes):.2f} s",
            other=f"target ≤ {TARGET_SECONDS} s",
            ratio=median(wholes) / TARGET_SECONDS,
        ),
    ]
