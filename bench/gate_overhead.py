"""What the gate costs besides evaluating and importing torch, on the example.

A whole run as on a runner: an environment with what the action installs and no more, a process of
its own, an event, a comment posted to a local server. The stages time themselves; what no stage
covers (starting Python, reading the event, ending) is "start". The engine is imported in the stages
"import" and "load"; of that, torch with what torch itself imports is not counted, transformers is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from bench import peers
from bench.figures import Figure, median
from tests import example
from tests.github_server import GitHubServer

RUNS = 3
TARGET_SECONDS = 2.0
NOT_OVERHEAD = ("torch", "evaluate", "self-check", "bisect")
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| ( *)(\S+)")


IMPORTING = (
    "import time; import adapterbot.commands.gate;"
    "from adapterbot.commands.evaluator import import_engine; began = time.perf_counter();"
    "import_engine(None); print(time.perf_counter() - began)"
)


def torch_seconds(python: Path) -> float:
    """How long importing torch takes of importing the engine.

    Python reports each module's own time after those that it imports, one level deeper. Reporting
    takes time itself, so what is taken from there is torch's share.
    """
    whole, share = (_imported(python, *options) for options in ((), ("-X", "importtime")))
    rows = [match.groups() for match in map(_IMPORT.match, share.stderr.splitlines()) if match]
    importers: list[str] = []
    torch = rest = 0
    for own, indent, name in reversed(rows):
        importers[len(indent) // 2 :] = [name]
        if any(importer.split(".")[0] == "torch" for importer in importers):
            torch += int(own)
        elif any(one.startswith(("adapterbot.eval.local", "transformers")) for one in importers):
            rest += int(own)
    return float(whole.stdout) * torch / (torch + rest)


def _imported(python: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *options, "-c", IMPORTING],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(peers.ROOT)},
    )


def one_run(python: Path, repository: Path, server: GitHubServer, place: Path) -> dict[str, float]:
    """Seconds by stage of one gate with a cold score cache."""
    payload = example.pull_request(repository)
    environment = {
        **os.environ,
        **example.runner_environment(place, "pull_request", payload, server.url),
        "ADAPTERBOT_CACHE": str(place / "scores"),
        "PYTHONPATH": str(peers.ROOT),
    }
    started = time.monotonic()
    done = subprocess.run(
        [python, "-m", "adapterbot", "gate"],
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
    # The log rounds to tenths; the report does not.
    (adapter,) = json.loads((place / "temp" / "adapterbot" / "report.json").read_text())["adapters"]
    stages |= {stage["name"]: stage["seconds"] for stage in adapter["stages"]}
    stages["start"] = wall - sum(stages.values())
    return stages


def measure() -> list[Figure]:
    """The split, as medians of a few runs."""
    with tempfile.TemporaryDirectory() as folder, GitHubServer() as server:
        server.add_token("t0ken")
        server.add_pull(example.REPOSITORY, example.NUMBER)
        repository = example.build(Path(folder) / "repository")
        python = peers.runner()
        runs = [one_run(python, repository, server, Path(folder) / str(i)) for i in range(RUNS)]
        torch = median(torch_seconds(python) for _ in range(RUNS))
    split = {name: median(run.get(name, 0.0) for run in runs) for name in runs[0]}
    split["import and load"] = split.pop("import") + split.pop("load") - torch
    split["torch"] = torch
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
