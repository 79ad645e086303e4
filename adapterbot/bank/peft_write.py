"""One user of a bank as a PEFT directory: VeRA or VB-LoRA as it is, or the LoRA that equals it.

The LoRA is exact: Λ_b B Λ_d A is (Λ_b B Λ_d)·A with VeRA's rank, and VB-LoRA's factors are those of
a LoRA. Where VeRA's rank is more than the layer has, the product is recompressed, which loses
nothing but rounding. (torch; no PEFT needed)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adapterbot.bank.codec import Rows
from adapterbot.bank.manifest import Generated, Manifest, SoupLayout, VbLoraLayout, VeraLayout
from adapterbot.bank.vblora import factors
from adapterbot.errors import InputError
from adapterbot.files import atomic
from adapterbot.weights.adapter import Adapter, LowRank
from adapterbot.weights.header import Header
from adapterbot.weights.layout import PREFIX
from adapterbot.weights.lowrank import recompressed
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME, AdapterFiles
from adapterbot.weights.saving import save_adapter
from adapterbot.weights.trained_on import named_base


def write_peft(
    manifest: Manifest,
    shared: Mapping[str, Tensor],
    row: Rows,
    directory: Path,
    *,
    projection: bool = True,
) -> None:
    """Writes one user as PEFT would have saved the adapter.

    Args:
        manifest: of the bank.
        shared: its shared tensors.
        row: the user's, one row.
        directory: where to.
        projection: whether A and B are saved too; without them PEFT draws them from the seed.

    Raises:
        InputError: the bank is Soup's, or has no seed and the projection is to be left out.
    """
    layout = manifest.layout
    if isinstance(layout, SoupLayout):
        raise _no_peft(manifest)
    base, revision = named_base(manifest.base_model)
    options: dict[str, Any] = {
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": layout.rank,
        "target_modules": [module.name for module in layout.modules],
        "task_type": "CAUSAL_LM",
    }
    if isinstance(layout, VeraLayout):
        options["peft_type"] = "VERA"
        tensors = _vera_tensors(layout, row)
        options |= {"save_projection": projection, "projection_prng_key": 0}
        if isinstance(manifest.shared, Generated):
            options["projection_prng_key"] = manifest.shared.seed
        elif not projection:
            raise InputError(
                "has no seed that PEFT could draw its projection from",
                field=manifest.name,
                fix="export it with the projection",
            )
        if projection:
            tensors |= {f"base_model.vera_{name}": shared[name] for name in ("A", "B")}
    else:
        options |= {
            "peft_type": "VBLORA",
            "num_vectors": layout.bank_size,
            "vector_length": layout.length,
            "topk": layout.top_k,
            "save_only_topk_weights": True,
        }
        tensors = _vblora_tensors(layout, row)
        tensors["base_model.vblora_vector_bank"] = shared["vectors"]
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    atomic.write_bytes(directory / WEIGHTS_NAME, save(kept, metadata={"format": "pt"}))
    atomic.write_text(directory / CONFIG_NAME, json.dumps(options, indent=2, sort_keys=True) + "\n")


def write_lora(
    manifest: Manifest, shared: Mapping[str, Tensor], row: Rows, directory: Path
) -> None:
    """Writes one user as a LoRA with the same ΔW, for servers that know nothing else.

    Raises:
        InputError: the bank is Soup's, which is no weight's update.
    """
    updates = lora_updates(manifest, shared, row)
    ranks = [update.rank for update in updates.values()]
    base, revision = named_base(manifest.base_model)
    config = LoraConfig.model_validate(
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "revision": revision,
            "target_modules": tuple(updates),
            "r": max(ranks),
            "lora_alpha": max(ranks),
            "inference_mode": True,
        }
    )
    shown = str(directory)
    files = AdapterFiles(directory, shown, config, Header({}, {}), {}, {}, ())
    save_adapter(Adapter(files, config, updates, {}), directory)


def lora_updates(manifest: Manifest, shared: Mapping[str, Tensor], row: Rows) -> dict[str, LowRank]:
    """ΔW of one user, by module."""
    layout = manifest.layout
    if isinstance(layout, SoupLayout):
        raise _no_peft(manifest)
    if isinstance(layout, VbLoraLayout):
        pairs = factors(layout, row, shared["vectors"])
        return {
            module.name: LowRank(a[0], b[0], 1.0)
            for module, (a, b) in zip(layout.modules, pairs, strict=True)
        }
    found: dict[str, LowRank] = {}
    vectors = torch.from_numpy(row.values[0]).split(layout.vectors)
    for module, inner, outer in zip(layout.modules, vectors[::2], vectors[1::2], strict=True):
        a, b = shared["A"][:, : module.inputs], shared["B"][: module.outputs]
        update = LowRank(a, outer[:, None] * b * inner, 1.0)
        if layout.rank > min(module.inputs, module.outputs):
            update = recompressed(update)
        found[module.name] = update
    return found


def _vera_tensors(layout: VeraLayout, row: Rows) -> dict[str, Tensor]:
    vectors = torch.from_numpy(row.values[0].copy()).split(layout.vectors)
    tensors: dict[str, Tensor] = {}
    for module, inner, outer in zip(layout.modules, vectors[::2], vectors[1::2], strict=True):
        tensors[f"{PREFIX}{module.name}.vera_lambda_d"] = inner
        tensors[f"{PREFIX}{module.name}.vera_lambda_b"] = outer
    return tensors


def _vblora_tensors(layout: VbLoraLayout, row: Rows) -> dict[str, Tensor]:
    weights = torch.from_numpy(row.values[0].copy()).split(layout.vectors)
    choices = torch.from_numpy(row.choices[0].copy()).split(layout.vectors)
    kind = next(
        kind
        for kind, most in ((torch.uint8, 2**8), (torch.int16, 2**15), (torch.int32, 2**31))
        if layout.bank_size < most
    )
    tensors: dict[str, Tensor] = {}
    pairs = list(zip(weights, choices, strict=True))
    for module, a, b in zip(layout.modules, pairs[::2], pairs[1::2], strict=True):
        for side, (weight, choice) in (("A", a), ("B", b)):
            shape = (
                (layout.rank, -1, layout.top_k) if side == "A" else (-1, layout.rank, layout.top_k)
            )
            # PEFT leaves the last weight out and takes the log of what the others leave of 1. That
            # must not be below 0, and is what rounding left of the others: so the last is largest.
            rising, order = weight.reshape(shape).sort(stable=True)
            name = f"{PREFIX}{module.name}.vblora_logits_{side}"
            tensors[f"{name}_topk_indices"] = choice.reshape(shape).gather(-1, order).to(kind)
            tensors[f"{name}_topk_weights"] = rising[..., :-1]
    return tensors


def _no_peft(manifest: Manifest) -> InputError:
    return InputError(
        "is Soup's kind of bank, which no PEFT adapter equals",
        field=manifest.name,
        fix="export it with --as soup",
    )
