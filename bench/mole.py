"""A mixture of LoRAs: one layer by every way to compute it, and whole generations against the bare
base, PEFT's X-LoRA and Soup's blend of separate passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor

from adapterbot.mole.kernels import Way, choose
from adapterbot.mole.mixture import Mixture
from adapterbot.weights import load_adapter
from adapterbot.weights.mixture_config import GateConfig
from bench import peers
from bench.figures import Figure, median, timed
from bench.mole_ways import Shape, seconds, ways
from tests.tiny_models import save_adapter, save_base

# The settings of the design's anchors, and two between them.
LAYERS = (
    Shape(tokens=4096, experts=8, rank=16, top_k=2, width=1024),
    Shape(tokens=4096, experts=32, rank=64, top_k=2, width=1024),
    Shape(tokens=8, experts=8, rank=16, top_k=2, width=1024),
    Shape(tokens=512, experts=8, rank=16, top_k=2, width=1024),
    Shape(tokens=512, experts=32, rank=64, top_k=2, width=1024),
)
EXPERTS, TOP_K, PROMPT, NEW, RUNS = 4, 2, 64, 32, 5
# The peer gets the very versions that we are measured with.
LIBRARIES = ("torch", "transformers", "peft")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def one_layer(shape: Shape) -> Figure:
    """Every way in turn; choosing one takes a microsecond."""
    taken = seconds(ways(shape))
    best = min(map(str, Way), key=taken.__getitem__)
    shown = ", ".join(f"{way} {taken[way] / taken['base']:.2f}" for way in map(str, Way))
    chosen = choose(shape.tokens, shape.experts, shape.rank, shape.top_k, shape.width)
    return Figure(
        name="MoLE, one layer: the way that is chosen",
        setting=f"d {shape.width}, {shape.tokens} tokens, N {shape.experts}, r {shape.rank}, top"
        f" {shape.top_k}; processor time over the base's: {shown}",
        ours=f"{chosen} {1e3 * taken[chosen]:.2f} ms",
        other=f"best of all, {best} {1e3 * taken[best]:.2f} ms (target ≤ 1.1)",
        ratio=taken[chosen] / taken[best],
    )


def made(root: Path) -> tuple[Path, Path]:
    """A random Llama (hidden 256, 4 layers), and adapters on all its linear layers."""
    base = save_base(
        "llama",
        root / "base",
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    for seed in range(EXPERTS):
        save_adapter(base, root / "adapters" / str(seed), seed=seed, r=8, target_modules=LINEAR)
    return base, root / "adapters"


def generate(model: Any, ids: Tensor, **more: Any) -> None:
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            **more,
        )


def xlora(base: Path, adapters: Path) -> Any:
    """PEFT's own mixture over the same adapters, top 2 per layer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.XLoraConfig(
        task_type="CAUSAL_LM",
        hidden_size=model.config.hidden_size,
        xlora_depth=1,
        layerwise_scalings=True,
        top_k_lora=TOP_K,
        adapters={path.name: str(path) for path in sorted(adapters.iterdir())},
    )
    model.config.use_cache = False
    return peft.get_peft_model(model, config).eval()


def installed(name: str) -> str:
    """A requirement of the version that is installed here."""
    return f"{name}=={version(name).split('+')[0]}"


def soup(base: Path, adapters: Path) -> dict[str, float]:
    """Soup's way, in its own environment on the same machine."""
    python = peers.environment("soup-torch", "soup-cli==0.77.0", *map(installed, LIBRARIES))
    script = peers.ROOT / "bench" / "peer_scripts" / "soup_mole.py"
    done = subprocess.run(
        [python / "python", script, base, adapters, str(PROMPT), str(NEW), str(RUNS)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def generation() -> list[Figure]:
    """Medians of whole generations; ours, the base's and X-LoRA's in turn, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        base, adapters = made(Path(folder))
        plain = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
        mine = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
        experts = {path.name: load_adapter(path) for path in sorted(adapters.iterdir())}
        mixture = Mixture(mine, experts, GateConfig(num_task_adapters=EXPERTS, top_k=TOP_K))
        theirs = xlora(base, adapters)
        ids = torch.arange(3, 3 + PROMPT)[None]
        times: dict[str, list[float]] = {"base": [], "ours": [], "X-LoRA": []}
        for turn in range(RUNS + 1):
            for name, model in (("base", plain), ("ours", mine), ("X-LoRA", theirs)):
                more = {"use_cache": False} if name == "X-LoRA" else {}
                took = timed(partial(generate, model, ids, **more))
                if turn:
                    times[name].append(took)
        mixture.detach()
        souped = soup(base, adapters)
    base_s, ours, xlora_s = (median(times[name]) for name in ("base", "ours", "X-LoRA"))
    setting = (
        f"random Llama (hidden 256, 4 layers), N {EXPERTS}, r 8 on every linear layer, top {TOP_K},"
        f" {PROMPT} + {NEW} tokens"
    )
    return [
        Figure(
            name="MoLE generation against the bare base",
            setting=setting,
            ours=f"{ours:.3f} s",
            other=f"base {base_s:.3f} s (target ≤ 2.0)",
            ratio=ours / base_s,
        ),
        Figure(
            name="MoLE generation against PEFT's X-LoRA",
            setting=setting,
            ours=f"{ours:.3f} s",
            other=f"X-LoRA {xlora_s:.3f} s (target ≤ 0.167)",
            ratio=ours / xlora_s,
        ),
        Figure(
            name="MoLE generation against Soup's separate passes",
            setting=f"{setting}; each over the bare base in its own process",
            ours=f"{ours / base_s:.2f} × base",
            other=f"soup {souped['soup'] / souped['base']:.2f} × base (target ≤ 0.167)",
            ratio=(ours / base_s) / (souped["soup"] / souped["base"]),
        ),
    ]


def measure() -> list[Figure]:
    """One layer at every setting, then generation."""
    print(f"torch with {torch.get_num_threads()} threads", file=sys.stderr)
    return [*(one_layer(shape) for shape in LAYERS), *generation()]
