"""On a GPU: samples a second for a base of about a billion parameters, and where the time goes.

The base has the shapes of Llama-3.2-1B and random weights. "Outside forward passes" is what the
wall clock shows beyond the time in which kernels of a pass were queued or running: tokenising,
batching, scoring, the cache. Without CUDA there is nothing to measure, and it says so.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.engine import Engine
from adapterbot.eval.settings import EngineSettings
from adapterbot.eval.suite import load_suite
from adapterbot.files.tree import WorkTree
from bench.figures import Figure
from bench.workloads import lay_out, random_adapter, random_llama, requests

# Llama-3.2-1B but for the vocabulary, which is that of the example's tokenizer padded with rows
# that no text uses: the head costs what it costs there.
SHAPE = {
    "hidden": 2048,
    "layers": 16,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}
MOST_OUTSIDE = 0.1


class Passes:
    """The seconds in which the model's forward passes ran, queue and device together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def timed(self, engine: Engine) -> Iterator[None]:
        """Times every pass of the body and of the head inside."""
        started: list[float] = []

        def before(*_: object) -> None:
            started.append(time.perf_counter())

        def after(*_: object) -> None:
            if engine.base.device.type == "cuda":
                torch.cuda.synchronize()
            begun = started.pop()
            if not started:
                self.seconds += time.perf_counter() - begun

        model = engine.base.model
        hooks = [
            hook
            for module in (model.model, model.lm_head)
            for hook in (
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            )
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def figures(device: str, shape: Mapping[str, int], samples: int) -> list[Figure]:
    """Both adapters on likelihoods and on texts.

    Args:
        device: where to evaluate.
        shape: the base's, as `random_llama` takes it.
        samples: of each task.
    """
    found = []
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as place, ScoreCache(Path(place) / "cache") as cache:
        folder = Path(place)
        base = random_llama(folder / "base", dtype=torch.bfloat16, **shape)
        adapters = [random_adapter(base, folder / str(seed), seed, rank=16) for seed in (1, 2)]
        rows = requests(questions=samples, prompts=samples)
        lay_out(folder, *rows, limit=64, stop=["\n\n"])
        tasks = load_suite(WorkTree(folder), "suite.yaml").tasks
        with Engine(base, EngineSettings(device=device), cache=cache) as engine:
            parameters = sum(p.numel() for p in engine.base.model.parameters())
            warm = [task.model_copy(update={"samples": task.samples[:64]}) for task in tasks]
            engine.evaluate(warm, None)  # no adapter that is measured, so nothing is cached of it
            for task in tasks:
                passes = Passes()
                begun = time.perf_counter()
                with passes.timed(engine):
                    before = engine.evaluate([task], adapters[0])
                    engine.evaluate([task], adapters[1], drafts=before)
                wall = time.perf_counter() - begun
                outside = 1 - passes.seconds / wall
                found.append(
                    Figure(
                        name=f"GPU: {task.name}, time outside forward passes",
                        setting=f"{name}, bf16, {parameters / 1e9:.1f} B parameters, two"
                        f" adapters × {len(task.samples)} samples,"
                        f" {2 * len(task.samples) / wall:,.0f} samples/s",
                        ours=f"{outside:.1%}",
                        other=f"asked ≤ {MOST_OUTSIDE:.0%}",
                        ratio=outside / MOST_OUTSIDE,
                    )
                )
    return found


def measure() -> list[Figure]:
    """On the GPU, where there is one."""
    if not torch.cuda.is_available():
        print("bench gpu: skipped, there is no CUDA device here", file=sys.stderr)
        return []
    return figures("cuda", SHAPE, samples=1000)
