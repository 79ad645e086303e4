"""VeRA and VB-LoRA checkpoints that PEFT saved, as rows of a bank. (torch; no PEFT needed)

Source: PEFT 0.21, `VeraModel._get_adapter_state_dict` and `VBLoRAModel._get_adapter_state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from adapterbot.bank import shared
from adapterbot.bank.codec import Rows, plain
from adapterbot.bank.manifest import (
    Module,
    Seed,
    Size,
    VbLoraLayout,
    VeraLayout,
    shared_shapes,
)
from adapterbot.errors import InputError
from adapterbot.files.validation import bad_input
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir
from adapterbot.weights.trained_on import base_at

_PART = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?P<part>vera_lambda_[bd]|vblora_logits_[AB])"
    r"(?P<top>_topk_(?:indices|weights))?"
)
_SHARED = {
    "vera": ("base_model.vera_A", "base_model.vera_B"),
    "vblora": ("base_model.vblora_vector_bank",),
}
_SAME_RUN = "push adapter_config.json and the weights of the same training run"

Inputs = Callable[[Sequence[str], str], Mapping[str, Module]]
"""The linear modules of these names of the base model, whose name is the adapter's: a VeRA
checkpoint does not say how many inputs they have."""

Draw = Callable[[VeraLayout, int], Mapping[str, Tensor]]
"""What a seed gives."""


class _Options(BaseModel):
    """The options that decide what a VeRA or VB-LoRA checkpoint means, with PEFT's defaults."""

    model_config = ConfigDict(strict=True, extra="ignore")

    r: Size
    projection_prng_key: Seed = 0
    save_projection: bool = True
    num_vectors: Size = 256
    vector_length: Size = 256
    topk: Size = 2
    save_only_topk_weights: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """One user's adapter.

    Attributes:
        layout: what its row is made of.
        row: its row.
        shared: the shared tensors, as saved or as its seed gives them.
        seed: the seed of a projection that was not saved.
        base_model: as the adapter names it.
    """

    layout: VeraLayout | VbLoraLayout
    row: Rows
    shared: Mapping[str, Tensor]
    seed: int | None
    base_model: str


def read_checkpoint(path: Path | str, inputs: Inputs, draw: Draw = shared.draw) -> Checkpoint:
    """Reads a directory that PEFT's `save_pretrained` wrote.

    Args:
        path: the directory.
        inputs: the base model's modules by name; asked for VeRA only.
        draw: the projections of a seed; whoever reads many adapters keeps them.

    Raises:
        InputError: it is another kind of adapter, trains more than a bank holds, or is broken.
    """
    files = read_adapter_dir(path)
    options = _options(files)
    tensors = shared.read(files.weights_path)
    kind = files.config.peft_type.lower()
    parts: dict[str, dict[str, Tensor]] = {}
    for name in sorted(tensors):
        found = _PART.fullmatch(name)
        if found and found["part"].startswith(kind):
            key = found["part"] + (found["top"] or "")
            parts.setdefault(found["module"], {})[key] = tensors[name]
        elif name not in _SHARED[kind]:
            raise InputError(
                "is a tensor that a bank does not hold",
                file=files.weights_shown,
                field=name,
                fix="train without biases and modules_to_save",
            )
    if not parts:
        raise InputError("holds no vectors", file=files.weights_shown, fix=_SAME_RUN)
    base = base_at(files.config.base_model_name_or_path or "", files.config.revision)
    if kind == "vera":
        modules = inputs(tuple(parts), base)
        return _vera(files, options, tensors, parts, modules, draw, base)
    return _vblora(files, options, tensors, parts, base)


def _options(files: AdapterFiles) -> _Options:
    if files.config.peft_type not in ("VERA", "VBLORA"):
        raise InputError(
            f"is {files.config.peft_type}; a bank holds VERA and VBLORA adapters",
            file=files.config_shown,
            field="peft_type",
            fix="train a VeRA or VB-LoRA adapter",
        )
    default = {"r": 256 if files.config.peft_type == "VERA" else 4}
    try:
        options = _Options.model_validate(default | (files.config.model_extra or {}))
    except ValidationError as error:
        fix = "save the adapter again with PEFT"
        raise bad_input(error, file=files.config_shown, fix=fix) from error
    if options.bias != "none" or options.modules_to_save:
        raise InputError(
            "is trained too, which a bank does not hold",
            file=files.config_shown,
            field="modules_to_save" if options.modules_to_save else "bias",
            fix="train without it",
        )
    return options


def _vera(
    files: AdapterFiles,
    options: _Options,
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, Mapping[str, Tensor]],
    modules: Mapping[str, Module],
    draw: Draw,
    base: str,
) -> Checkpoint:
    ordered = tuple(modules[name] for name in sorted(parts))
    layout = _checked(files, lambda: VeraLayout(rank=options.r, modules=ordered))
    vectors: list[Tensor] = []
    for module in ordered:
        held = parts[module.name]
        inner, outer = held.get("vera_lambda_d"), held.get("vera_lambda_b")
        wanted = options.r, module.outputs
        if inner is None or outer is None or (inner.numel(), outer.numel()) != wanted:
            raise _unfit(
                files, module.name, f"needs vectors of {options.r} and of {module.outputs} numbers"
            )
        vectors += [inner.reshape(-1), outer.reshape(-1)]
    row = plain(torch.cat([vector.float() for vector in vectors])[None].numpy())
    a, b = tensors.get("base_model.vera_A"), tensors.get("base_model.vera_B")
    if a is None or b is None:
        if options.save_projection:
            raise _unfit(files, "vera_A and vera_B", "is said to be saved, but is not there")
        seed = options.projection_prng_key
        return Checkpoint(layout, row, draw(layout, seed), seed, base)
    projections = {"A": a.float(), "B": b.float()}
    _check_shared(files, projections, layout)
    return Checkpoint(layout, row, projections, None, base)


def _vblora(
    files: AdapterFiles,
    options: _Options,
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, Mapping[str, Tensor]],
    base: str,
) -> Checkpoint:
    bank = tensors.get("base_model.vblora_vector_bank")
    if bank is None:
        raise _unfit(files, "vblora_vector_bank", "is not there")
    weights: list[Tensor] = []
    choices: list[Tensor] = []
    widths: dict[str, tuple[int, int]] = {}
    for name in sorted(parts):
        sides = []
        for side in "AB":
            weight, choice = _chosen(files, options, name, side, parts[name])
            weights.append(weight.reshape(-1))
            choices.append(choice.reshape(-1))
            sides.append(weight.shape)
        (rank_a, tiles_in, _), (tiles_out, rank_b, _) = sides
        if rank_a != options.r or rank_b != options.r:
            raise _unfit(
                files, name, f"has rank {rank_a} and {rank_b}, the options say {options.r}"
            )
        widths[name] = tiles_in * options.vector_length, tiles_out * options.vector_length
    layout = _checked(
        files,
        lambda: VbLoraLayout(
            rank=options.r,
            length=options.vector_length,
            bank_size=options.num_vectors,
            top_k=options.topk,
            modules=tuple(
                Module(name=name, inputs=width, outputs=height)
                for name, (width, height) in widths.items()
            ),
        ),
    )
    vectors = {"vectors": bank.float()}
    _check_shared(files, vectors, layout)
    row = Rows(torch.cat(weights)[None].numpy(), torch.cat(choices)[None].numpy().astype(np.int64))
    return Checkpoint(layout, row, vectors, None, base)


def _chosen(
    files: AdapterFiles, options: _Options, module: str, side: str, held: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Weights and choices (…, …, top_k) of one factor, largest first, saved whole or as its top
    k."""
    logits = held.get(f"vblora_logits_{side}")
    if logits is not None and logits.dim() == 3 and logits.shape[-1] == options.num_vectors:
        best, choices = logits.float().topk(min(options.topk, logits.shape[-1]), dim=-1)
        return best.softmax(-1), choices
    choices = held.get(f"vblora_logits_{side}_topk_indices")
    first = held.get(f"vblora_logits_{side}_topk_weights")
    if (
        choices is None
        or first is None
        or first.dim() != 3
        or choices.shape != (*first.shape[:2], options.topk)
        or first.shape[2] != options.topk - 1
        or choices.is_floating_point()
    ):
        raise _unfit(files, module, f"has no logits for its factor {side} that fit its options")
    # PEFT leaves the last weight out: they sum to one.
    first = first.float()
    weights = torch.cat([first, 1 - first.sum(-1, keepdim=True)], dim=-1)
    falling, order = weights.sort(descending=True, stable=True)
    return falling, choices.long().gather(-1, order)


def _check_shared(
    files: AdapterFiles, tensors: Mapping[str, Tensor], layout: VeraLayout | VbLoraLayout
) -> None:
    wanted = shared_shapes(layout)
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted[name]:
            raise _unfit(
                files, name, f"has shape {tuple(tensor.shape)}, its modules take {wanted[name]}"
            )
    shared.refuse_infinite(tensors, files.weights_shown)


def _checked(files: AdapterFiles, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ValidationError as error:
        raise bad_input(error, file=files.config_shown, fix=_SAME_RUN) from error


def _unfit(files: AdapterFiles, field: str, why: str) -> InputError:
    """The error for weights that do not go with their options."""
    return InputError(why, file=files.weights_shown, field=field, fix=_SAME_RUN)
