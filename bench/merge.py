"""Merging beside PEFT and pycma: exactness, cost of a candidate, what a search finds, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

from adapterbot.weights import attach, load_adapter, merge_linear, save_adapter
from adapterbot.weights.adapter import LowRank
from adapterbot.weights.lowrank import recompressed
from bench import peers
from bench.figures import Figure, median
from tests import tiny_models
from tests.adapter_kinds import KINDS, save_bases

SEEDS = 60


def measure() -> list[Figure]:
    """Every figure of the merge."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    return [exactness(), *regrets(), *candidate_cost(), core_svd(), *memory()]


def seconds(call: Callable[[], object], runs: int) -> float:
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return median(found)


def exactness() -> Figure:
    """The worst relative error over all kinds of adapters, in PEFT's own `get_delta_weight`."""
    worst, kind_of = 0.0, ""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        root = Path(folder)
        bases = save_bases(root)
        for kind, (name, options) in KINDS.items():
            parts = [
                tiny_models.save_adapter(
                    bases[name], root / kind / str(i), seed=i, **{"r": 3 + i, **options}
                )
                for i in range(3)
            ]
            weights = [0.7, -0.4, 0.7]
            merged = merge_linear([load_adapter(p) for p in parts], weights, base=bases[name])
            save_adapter(merged, root / kind / "merged")
            got = deltas(bases[name], root / kind / "merged")
            each = [deltas(bases[name], part) for part in parts]
            for module, delta in got.items():
                want = sum(w * d[module] for w, d in zip(weights, each, strict=True))
                error = float((delta - want).norm() / want.norm())
                if error > worst:
                    worst, kind_of = error, kind
    return Figure(
        name="Merge: relative error against Σ wᵢ ΔWᵢ in fp64",
        setting=f"fp32 adapters of {len(KINDS)} kinds, as PEFT loads them; worst: {kind_of}",
        ours=f"{worst:.1e}",
        other="target ≤ 1e-6",
        ratio=worst / 1e-6,
    )


def deltas(base: Path, adapter: Path) -> dict[str, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(base).double()
    wrapped = peft.PeftModel.from_pretrained(model, adapter).double()
    return {
        name: module.get_delta_weight("default")
        for name, module in wrapped.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def regrets() -> list[Figure]:
    """Blends whose best is known, judged by 60 noisy items."""
    python = peers.environment(
        "cma-merge", "cma==4.5.0", "numpy", f"pydantic=={version('pydantic')}"
    )
    done = subprocess.run(
        [
            python / "python", "-W", "ignore", "-m", "bench.peer_scripts.merge_regret", str(SEEDS)
        ],
        cwd=peers.ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    found = []
    for row in json.loads(done.stdout):
        middle = {name: median(values) for name, values in row["regret"].items()}
        ours, theirs = np.array(row["regret"]["ours"]), np.array(row["regret"]["pycma"])
        found.append(
            Figure(
                name=f"Merge: regret, {row['kind']} optimum, {row['n']} adapters",
                setting="160 evaluations of 60 items (each adapter alone is among ours), median "
                f"of {SEEDS} worlds; less than pycma's in "
                f"{(ours < theirs).sum()} of them, more in {(ours > theirs).sum()}",
                ours=f"{middle['ours']:.4f}",
                other=f"pycma {middle['pycma']:.4f}, random {middle['dirichlet']:.4f}",
                ratio=(middle["ours"] + 1e-4) / (middle["pycma"] + 1e-4),
            )
        )
    return found


def candidate_cost() -> list[Figure]:
    """What stands between two candidates, before a token is read."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base = tiny_models.save_base(
            "llama", root / "base", hidden_size=256, intermediate_size=512, num_hidden_layers=8
        )
        paths = [
            tiny_models.save_adapter(base, root / str(i), seed=i, r=16, target_modules="all-linear")
            for i in range(8)
        ]
        names = [str(i) for i in range(8)]
        theirs = peft.PeftModel.from_pretrained(
            transformers.AutoModelForCausalLM.from_pretrained(base), paths[0], "0"
        )
        for name, path in zip(names[1:], paths[1:], strict=True):
            theirs.load_adapter(path, name)
        mine = transformers.AutoModelForCausalLM.from_pretrained(base)
        weights = {name: 0.1 * (i + 1) for i, name in enumerate(names)}

        def by_peft(kind: str) -> None:
            theirs.add_weighted_adapter(names, list(weights.values()), "new", kind)
            theirs.set_adapter("new")
            theirs.delete_adapter("new")

        adapters = {name: load_adapter(path) for name, path in zip(names, paths, strict=True)}
        with attach(mine, adapters) as attachment:
            attachment.blend(weights)
            found = []
            for kind in ("linear", "cat"):
                ours, other = [], []
                for _ in range(5):
                    ours.append(seconds(lambda: attachment.blend(weights), 50))
                    other.append(seconds(lambda kind=kind: by_peft(kind), 1))  # type: ignore[misc]
                found.append(
                    Figure(
                        name="Merge: set-up of a candidate",
                        setting="8 adapters of rank 16 on the 56 projections of a small Llama",
                        ours=f"{1e6 * median(ours):.0f} µs",
                        other=f"PEFT add_weighted_adapter({kind!r}) {1e3 * median(other):.0f} ms"
                        " (target ≥ 1000 ×)",
                        ratio=median(ours) / median(other),
                    )
                )
    return found


def core_svd() -> Figure:
    """Rank 64 to rank 16 at d = 1024."""
    source = torch.Generator().manual_seed(0)
    update = LowRank(
        torch.randn(64, 1024, generator=source), torch.randn(1024, 64, generator=source), 0.5
    )
    delta = update.scale * (update.b @ update.a)

    def dense() -> tuple[Any, Any, Any]:
        u, s, v = torch.linalg.svd(delta, full_matrices=False)
        return u[:, :16], s[:16], v[:16]

    ours, other = [], []
    for _ in range(3):
        ours.append(seconds(lambda: recompressed(update, 16), 5))
        other.append(seconds(dense, 1))
    small = recompressed(update, 16)
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    want = (u[:, :16] * s[:16]) @ v[:16]
    error = float((small.b.double() @ small.a.double() - want).norm() / want.norm())
    return Figure(
        name="Merge: recompression by the core",
        setting=f"d = 1024, rank 64 to 16, one core; {error:.0e} from the dense result in fp64",
        ours=f"{1e3 * median(ours):.1f} ms",
        other=f"dense SVD in fp32 {1e3 * median(other):.0f} ms (target ≥ 50 ×)",
        ratio=median(ours) / median(other),
    )


def memory() -> list[Figure]:
    """Peak memory with 16 adapters of an 8 B model: all of it linearly, a layer of it otherwise.

    Those that form or decompose ΔW take long, and hold one module after the other: what they hold
    at most does not depend on how many layers there are.
    """
    found = []
    for strategy, layers in (("linear", 32), ("svd", 1), ("ties", 1), ("dare-ties", 1)):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [
                    sys.executable, "-m", "bench.peer_scripts.merge_memory", strategy,
                    str(layers), folder,
                ],
                cwd=peers.ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=True,
                capture_output=True,
                text=True,
            )  # fmt: skip
        measured = json.loads(done.stdout)
        gib = measured["bytes"] / 2**30
        found.append(
            Figure(
                name=f"Merge: peak memory, {strategy}",
                setting=f"16 adapters of rank 16, {layers} of 32 layers of an 8 B model; "
                f"{measured['seconds']:.0f} s of CPU",
                ours=f"{gib:.2f} GiB",
                other="target < 4 GiB",
                ratio=gib / 4,
            )
        )
    return found
