"""LoRA adapters of every kind that the one equation expresses, and the bases they go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny_models import save_base

QV = ["q_proj", "v_proj"]
KINDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": QV}),
    "rslora": ("llama", {"target_modules": QV, "use_rslora": True, "lora_alpha": 16}),
    "all-linear": ("llama", {"target_modules": "all-linear"}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8},
            "alpha_pattern": {r"layers\.0\..*": 3},
        },
    ),
    "regex": ("llama", {"target_modules": r".*layers\.1\..*(gate|down)_proj"}),
    "layers": ("llama", {"target_modules": QV, "layers_to_transform": [1]}),
    "exclude": ("llama", {"target_modules": QV, "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "scaled embedding": ("gemma2", {"target_modules": ["embed_tokens", "q_proj"]}),
    "head": ("llama", {"target_modules": ["lm_head"]}),
    "tied embedding": ("tied", {"target_modules": ["embed_tokens"]}),
    "tied head": ("tied", {"target_modules": ["lm_head", "q_proj"]}),
    "modules_to_save": (
        "llama",
        {"target_modules": QV, "modules_to_save": ["lm_head", "post_attention_layernorm"]},
    ),
    "tied modules_to_save": ("tied", {"target_modules": QV, "modules_to_save": ["lm_head"]}),
    "saved embedding": ("llama", {"target_modules": QV, "modules_to_save": ["embed_tokens"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "conv1d all": ("gpt2", {"target_modules": "all-linear"}),
    "bias lora_only": ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}),
    "bias all": ("gpt2", {"target_modules": ["c_attn"], "bias": "all"}),
    "positions": ("gpt2", {"target_modules": ["wte", "wpe", "c_fc"]}),
}


def save_bases(root: Path) -> dict[str, Path]:
    """A base of each architecture that `KINDS` names."""
    return {
        "llama": save_base("llama", root / "llama"),
        "tied": save_base("llama", root / "tied", tie_word_embeddings=True),
        "gemma2": save_base("gemma2", root / "gemma2", head_dim=8),
        "gpt2": save_base("gpt2", root / "gpt2"),
    }
