"""Our CMA-ES beside pycma and cmaes: evaluations to the target, success, overhead.

The three take turns from each start, in an environment that holds the peers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import Any

from adapterbot.stats.proportions import PairedProportions
from bench import peers
from bench.figures import Figure, median

PEERS = ("cma==4.5.0", "cmaes==0.13.0")
FIRST, BOUND = 15, 1.05
# Where many runs fall short, by function and dimension.
CAUGHT = (("Rosenbrock", 7), ("Rosenbrock", 15))

Row = dict[str, Any]


def measure() -> list[Figure]:
    """A row for each function and dimension; who falls short how often; and the overhead."""
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
    found = [*map(_evaluations, rows), _first_medians(rows)]
    for peer in ("pycma", "cmaes"):
        found += [
            _success([row], peer, _setting(row))
            for row in rows
            if (row["function"], row["n"]) in CAUGHT
        ]
        found.append(_success(rows, peer, f"all {len(rows)} settings"))
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


def _setting(row: Row) -> str:
    return f"{row['function']}, n = {row['n']}"


def _counts(row: Row) -> dict[str, list[float]]:
    """Evaluations to the target by search and seed, ∞ for a run that ended short of it."""
    return {
        name: [math.inf if spent is None else spent for spent, _ in runs]
        for name, runs in row["runs"].items()
    }


def _evaluations(row: Row) -> Figure:
    counts = _counts(row)
    middle = {name: median(values) for name, values in counts.items()}
    solved = {name: sum(map(math.isfinite, values)) for name, values in counts.items()}

    def shown(name: str) -> str:
        return f"{middle[name]:,.0f} ({solved[name]:,}/{len(counts[name]):,})"

    return Figure(
        name=f"CMA-ES: {_setting(row)}",
        setting=f"evaluations to the target, median of {len(counts['ours']):,} fresh seeds "
        "(runs that reach it)",
        ours=shown("ours"),
        other=f"pycma {shown('pycma')}, cmaes {shown('cmaes')}",
        ratio=middle["ours"] / min(middle["pycma"], middle["cmaes"]),
    )


def _first_medians(rows: list[Row]) -> Figure:
    """The medians of few seeds, which wander: so also how many of all such medians hold."""
    ratios = {_setting(row): _ratios(row) for row in rows}
    first = {setting: found[0] for setting, found in ratios.items()}
    worst = max(first, key=lambda setting: first[setting])
    every = [ratio for found in ratios.values() for ratio in found]
    return Figure(
        name=f"CMA-ES: medians of the first {FIRST} of these seeds, worst setting",
        setting=f"evaluations to the target over those of the better peer, {len(rows)} settings; "
        f"and over every {FIRST} seeds in a row",
        ours=f"{first[worst]:.2f} ({worst}), {median(first.values()):.2f} in the middle; "
        f"{sum(ratio <= BOUND for ratio in every)} of {len(every)} ≤ {BOUND}",
        other=f"target ≤ {BOUND}",
        ratio=first[worst],
    )


def _ratios(row: Row) -> list[float]:
    """Our median over the better peer's, of every `FIRST` seeds in a row."""
    counts = _counts(row)
    found = []
    for start in range(0, len(counts["ours"]) - FIRST + 1, FIRST):
        middle = {name: median(values[start : start + FIRST]) for name, values in counts.items()}
        found.append(middle["ours"] / min(middle["pycma"], middle["cmaes"]))
    return found


def _success(rows: list[Row], peer: str, label: str) -> Figure:
    """Who falls short more often: every start was searched by both."""
    pairs = [
        (math.isfinite(ours), math.isfinite(theirs))
        for row in rows
        for counts in [_counts(row)]
        for ours, theirs in zip(counts["ours"], counts[peer], strict=True)
    ]
    worse = sum(theirs and not ours for ours, theirs in pairs)
    better = sum(ours and not theirs for ours, theirs in pairs)
    paired = PairedProportions(len(pairs), worse, better)
    low, high = (-100 * bound for bound in reversed(paired.bounds(0.025)))
    reached = [sum(column) for column in zip(*pairs, strict=True)]
    short = [len(pairs) - count for count in reached]
    return Figure(
        name=f"CMA-ES: runs that reach the target, {label}",
        setting=f"{len(pairs):,} starts; ours less {peer}, paired, 95 % interval: around 0, "
        "neither reaches it more often; ratio of the runs that do not",
        ours=f"{reached[0]:,}",
        other=f"{peer} {reached[1]:,}: {-100 * paired.harm:+.2f} % [{low:+.2f}, {high:+.2f}]",
        ratio=(short[0] + 0.5) / (short[1] + 0.5),
    )
