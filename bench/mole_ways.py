"""Measures every way to compute a layer of a mixture, and writes the table that `choose` reads.

    python -m bench.mole_ways

One thread, processor seconds, the ways in turn within every round: what else runs on the machine
slows all of them alike. It takes 41 seconds of a core.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from adapterbot.files.atomic import write_text
from adapterbot.mole.kernels import TABLE, ExpertStack, Routing, Way, mixed
from bench.figures import median

TOKENS = (1, 8, 64, 512, 4096)
EXPERTS_AND_RANKS = ((4, 8), (8, 16), (8, 64), (32, 16), (32, 64))
TOP_K = 2
WIDTHS = (256, 1024)
ROUNDS = 7
# A call is repeated until a round of it lasts this long.
SECONDS = 0.01
# A call that takes longer, and so much longer than another, is not measured more closely.
LONG, HOPELESS = 0.05, 2.5


@dataclass(frozen=True)
class Shape:
    """One layer: tokens, experts, rank, experts per token, width in and out."""

    tokens: int
    experts: int
    rank: int
    top_k: int
    width: int


def ways(shape: Shape) -> dict[str, Callable[[], object]]:
    """Each way by name, as one call; `base` is the layer's own GEMM."""
    torch.manual_seed(0)
    n, total = shape.experts, shape.experts * shape.rank
    stack = ExpertStack(
        a=torch.randn(total, shape.width),
        b=torch.randn(shape.width, total),
        ranks=(shape.rank,) * n,
        scales=(1.0,) * n,
        owner=torch.arange(n).repeat_interleave(shape.rank),
    )
    x, own = torch.randn(shape.tokens, shape.width), torch.randn(shape.tokens, shape.width)
    weight = torch.randn(shape.width, shape.width)
    kept, experts = torch.randn(shape.tokens, n).softmax(-1).topk(shape.top_k)

    def by(way: Way) -> Callable[[], object]:
        # A routing of its own every time: what it keeps is part of what a way costs.
        return lambda: mixed(own, x, stack, Routing(experts, kept), way)

    return {
        **{str(way): by(way) for way in Way},
        "base": lambda: F.linear(x, weight),
    }


def seconds(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Processor seconds of one call of each: medians over rounds in which all have their turn."""
    with torch.inference_mode():
        first = {name: _timed(call, 2) for name, call in calls.items()}
        repeats = max(1, round(SECONDS / min(first.values())))
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                found[name].append(_timed(call, repeats))
    return {name: median(values) for name, values in found.items()}


def _timed(call: Callable[[], object], repeats: int) -> float:
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats


def measured(shape: Shape) -> dict[str, float]:
    """Each way's cost over the cheapest one's; those without a chance from a first look."""
    calls = {name: call for name, call in ways(shape).items() if name in set(Way)}
    with torch.inference_mode():
        first = {name: min(_timed(call, 1) for _ in range(2)) for name, call in calls.items()}
    least = min(first.values())
    close = {
        name: call for name, call in calls.items() if first[name] < max(LONG, HOPELESS * least)
    }
    found = {**first, **seconds(close)}
    best = min(found[name] for name in close)
    return {name: round(found[name] / best, 3) for name in calls}


def main() -> None:
    """The whole grid."""
    torch.set_num_threads(1)
    rows = []
    grid = itertools.product(WIDTHS, EXPERTS_AND_RANKS, TOKENS)
    for width, (experts, rank), tokens in grid:
        shape = Shape(tokens, experts, rank, TOP_K, width)
        rows.append({**vars(shape), "cost": measured(shape)})
        print(rows[-1], file=sys.stderr, flush=True)
    print(f"{time.process_time():.0f} s of a core", file=sys.stderr)
    text = ",\n".join(json.dumps(row) for row in rows)
    write_text(TABLE, f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
