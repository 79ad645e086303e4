"""Merges adapters of an 8 B model's shapes in a process of its own; prints its peak memory.

Arguments: strategy, layers, folder to work in.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from adapterbot.merge.names import Strategy
from adapterbot.merge.strategies import Merger
from adapterbot.weights import open_adapter, save_adapter
from adapterbot.weights.adapter import Adapter, Lazily, LowRank
from adapterbot.weights.header import Header
from adapterbot.weights.merging import merge_with
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import AdapterFiles

ADAPTERS, RANK = 16, 16
SHAPES = {
    "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096), "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096), "mlp.down_proj": (4096, 14336),
}  # fmt: skip


def write(folder: Path, layers: int) -> list[Path]:
    """Random adapters, written layer by layer as well."""
    names = {
        f"model.layers.{i}.{name}": size for i in range(layers) for name, size in SHAPES.items()
    }
    config = LoraConfig.model_validate(
        {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": tuple(names)}
    )
    paths = []
    for number in range(ADAPTERS):
        source = torch.Generator().manual_seed(number)

        def update(module: str, source: torch.Generator = source) -> LowRank:
            out, into = names[module]
            a = torch.randn(RANK, into, generator=source).bfloat16()
            return LowRank(a, torch.randn(out, RANK, generator=source).bfloat16() / 64, 1.0)

        files = AdapterFiles(folder, "made", config, Header({}, {}), {}, {}, ())
        path = folder / str(number)
        save_adapter(Adapter(files, config, Lazily(names, update), {}), path)
        paths.append(path)
    return paths


def main() -> None:
    """Make, merge, measure."""
    strategy, layers, folder = Strategy(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    paths = write(folder, layers)
    started = time.process_time()
    merger = Merger(strategy, 1.0, rank=None if strategy is Strategy.LINEAR else RANK)
    save_adapter(
        merge_with(merger, [open_adapter(p) for p in paths], [1 / ADAPTERS] * ADAPTERS),
        folder / "merged",
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"bytes": peak, "seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
