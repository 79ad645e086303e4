"""Our CMA-ES beside pycma and cmaes: evaluations to the target, success, overhead.

The three take turns from each start, in an environment that holds the peers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import Any

from bench import peers
from bench.figures import Figure, median

PEERS = ("cma==4.5.0", "cmaes==0.13.0")


def measure() -> list[Figure]:
    """A row for each function and dimension, and one for the overhead."""
    python = peers.environment("cma", *PEERS, "numpy") / "python"
    done = subprocess.run(
        [python, "-W", "ignore", "-m", "bench.cmaes_run"],
        cwd=peers.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(done.stdout)
    found = [_evaluations(row) for row in rows]
    timed = [row for row in rows if any(second for _, second in row["runs"]["ours"])]
    overhead = {
        name: median(second for row in timed for _, second in row["runs"][name])
        for name in ("ours", "pycma", "cmaes")
    }
    better = min(overhead["pycma"], overhead["cmaes"])
    found.append(
        Figure(
            name="CMA-ES: overhead of a generation",
            setting="ask, tell and stop, CPU time; median over the runs above",
            ours=f"{1e6 * overhead['ours']:.0f} µs",
            other=f"pycma {1e6 * overhead['pycma']:.0f} µs, cmaes {1e6 * overhead['cmaes']:.0f} µs",
            ratio=overhead["ours"] / better,
        )
    )
    return found


def _evaluations(row: dict[str, Any]) -> Figure:
    counts = {
        name: [math.inf if spent is None else spent for spent, _ in runs]
        for name, runs in row["runs"].items()
    }
    middle = {name: median(values) for name, values in counts.items()}
    solved = {name: sum(map(math.isfinite, values)) for name, values in counts.items()}

    def shown(name: str) -> str:
        return f"{middle[name]:,.0f} ({solved[name]}/{len(counts[name])})"

    return Figure(
        name=f"CMA-ES: {row['function']}, n = {row['n']}",
        setting=f"evaluations to the target, median of {len(counts['ours'])} fresh seeds "
        "(runs that reach it)",
        ours=shown("ours"),
        other=f"pycma {shown('pycma')}, cmaes {shown('cmaes')}",
        ratio=middle["ours"] / min(middle["pycma"], middle["cmaes"]),
    )
