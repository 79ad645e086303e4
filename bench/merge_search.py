"""A whole search for the weights of a merge, ours beside Soup's: what it costs and what it finds.

Soup is run twice: by its command line, which calls itself converged where the best of four
generations is the same, and without that rule, so that it tries all that it was allowed. Ours is
run twice as well: with all that it was allowed, and with no more candidates than Soup's command
tried before it stopped. Nothing is reckoned from a part.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from adapterbot.eval.engine import Engine
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from bench import peers
from bench.figures import Figure, children
from tests.example import EXAMPLE

DATES = ("dates_eu", "dates_us", "dates_iso")
POPULATION, GENERATIONS, ROWS = 8, 20, 24


@dataclass(frozen=True)
class Searched:
    """One search: seconds of CPU, how many candidates it tried, its score on rows unseen."""

    seconds: float
    candidates: int
    score: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s for {self.candidates} candidates, held-out score "
            f"{self.score:.3f}"
        )


def measure() -> list[Figure]:
    """The same three specialists, the same rows to choose on, the same rows to be judged by."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        held_out = prepare(place)
        command, whole = by_soup_command(place), by_soup_functions(place)
        ours = by_ours(place, GENERATIONS)
        few = by_ours(place, math.ceil(command.candidates / POPULATION))
    task = f"3 adapters, {ROWS} rows to choose on, {held_out} held out, {POPULATION} a generation"
    rows = (
        ("each to its own end", f"both allowed {GENERATIONS} generations", ours, command),
        ("as many candidates", "ours stopped where Soup's command stops itself", few, command),
        ("as many candidates", "Soup's functions without the rule that stops it", ours, whole),
    )
    return [
        Figure(
            name=f"Merge: a whole search, {label}",
            setting=f"{task}; {how}; CPU seconds of the whole command, one core",
            ours=str(mine),
            other=f"soup adapters merge --strategy cmaes {theirs} (target ≥ 10 ×)",
            ratio=mine.seconds / theirs.seconds,
        )
        for label, how, mine, theirs in rows
    ]


def prepare(place: Path) -> int:
    """Base, specialists, rows to choose on in both formats; how many rows nobody will have seen."""
    shutil.copytree(EXAMPLE / "base", place / "base")
    for name in DATES:
        shutil.copytree(EXAMPLE / "experts" / name, place / name)
    suite = yaml.safe_load((EXAMPLE / "evals/suite.yaml").read_text())
    lines: list[str] = []
    held_out = 0
    (place / "held").mkdir()
    for task in suite["tasks"]:
        rows = (EXAMPLE / "evals" / task["data"]).read_text().splitlines()
        # Ours splits what it is given in halves, so it is given twice as many.
        share = 2 * ROWS // len(DATES)
        (place / task["data"]).write_text("\n".join(rows[:share]) + "\n")
        (place / "held" / task["data"]).write_text("\n".join(rows[share:]) + "\n")
        lines += [json.dumps({**json.loads(row), "scoring": "exact"}) for row in rows[: share // 2]]
        held_out += len(rows[share:])
    for target in (place / "suite.yaml", place / "held/suite.yaml"):
        target.write_text(yaml.safe_dump(suite))
    (place / "soup.jsonl").write_text("\n".join(lines) + "\n")
    return held_out


def by_ours(place: Path, generations: int) -> Searched:
    """Our command line, without racing: every candidate reads every row, as Soup's do."""
    adapters = [part for name in DATES for part in ("--adapter", name)]
    output = place / f"ours-{generations}"
    seconds, _ = timed(
        place,
        [
            sys.executable, "-m", "adapterbot", "merge", *adapters, "--eval", "suite.yaml",
            "--base", "base", "--population", str(POPULATION), "--generations", str(generations),
            "--no-race", "--budget", "1h", "--output", output,
        ],
    )  # fmt: skip
    record = json.loads((output / "merge.json").read_text())
    return Searched(seconds, record["search"]["candidates"], score(place, output))


def by_soup_command(place: Path) -> Searched:
    """Soup's command line; its panel says how many it evaluated."""
    seconds, printed = timed(
        place,
        [
            soup() / "soup", "adapters", "merge", *DATES, "--strategy", "cmaes",
            "--eval", "soup.jsonl", "--population", str(POPULATION),
            "--max-generations", str(GENERATIONS), "--budget", "24h",
            "--output", "stopped", "--allow-unscanned",
        ],
    )  # fmt: skip
    candidates = int(printed.partition("Evaluations:")[2].split()[0])
    return Searched(seconds, candidates, score(place, place / "stopped"))


def by_soup_functions(place: Path) -> Searched:
    """All the candidates that it may try."""
    seconds, printed = timed(
        place,
        [
            soup() / "python", "-W", "ignore", peers.ROOT / "bench/peer_scripts/soup_merge.py",
            "soup.jsonl", "whole", str(POPULATION), str(GENERATIONS), *DATES,
        ],
    )  # fmt: skip
    return Searched(seconds, int(printed), score(place, place / "whole"))


def soup() -> Path:
    """Soup with the libraries that ours is measured with."""
    libraries = ("torch", "transformers", "peft", "safetensors")
    return peers.environment(
        "soup-torch", "soup-cli==0.77.0", *(f"{n}=={version(n).split('+')[0]}" for n in libraries)
    )


def timed(place: Path, command: Sequence[str | Path]) -> tuple[float, str]:
    """CPU seconds of a command, which another job on the machine does not lengthen, and its output.

    Raises:
        SystemExit: the command failed; with what it printed.
    """
    before = children()
    done = subprocess.run(
        command,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return children() - before, done.stdout


def score(place: Path, adapter: Path) -> float:
    """Exact match on the rows that no search saw."""
    suite = load_suite(WorkTree(place), "held/suite.yaml")
    with Engine(place / "base") as engine:
        results = engine.evaluate(suite.tasks, adapter)
    return sum(sum(s.score or 0 for s in r.samples) / len(r.samples) for r in results) / len(
        results
    )
