"""The linear modules of a base model that a bank adapts, from its config alone. (torch)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adapterbot.bank.manifest import Module
from adapterbot.errors import InputError, first_line
from adapterbot.lock.loaded_base import config_on_disk
from adapterbot.weights.compatibility import targeted_modules
from adapterbot.weights.families import as_named, keep_family, model_class
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.site import features, is_linear


def skeleton(base: Path | str) -> Any:
    """The base model without weights: its modules on the meta device.

    Raises:
        InputError: there is no config, or it wants to run code of its own.
        OurFailure: the Hub did not answer, and this machine has no copy.
    """
    from transformers import AutoConfig

    place = config_on_disk(base, field="--base")
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with torch.device("meta"):
            model = model_class(config).from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"has no usable config: {first_line(error)}",
            file=str(base),
            fix="name the base model's directory, or its name on the Hub",
        ) from error
    keep_family(model, config)
    return model


def modules_of(base: Path | str, targets: Sequence[str] | str) -> tuple[Module, ...]:
    """The linear modules that `targets` names by PEFT's rules, sorted by name.

    Args:
        base: a model directory, or a name on the Hub.
        targets: names or their dotted endings; or one pattern; or `all-linear`.

    Raises:
        InputError: none is named, or something that is not linear.
    """
    wanted = targets if isinstance(targets, str) else tuple(targets)
    model = as_named(skeleton(base), () if isinstance(wanted, str) else wanted)
    config = LoraConfig.model_validate({"peft_type": "LORA", "target_modules": wanted})
    found = []
    for name in sorted(targeted_modules(model, config)):
        module = model.get_submodule(name)
        shape = features(module) if is_linear(module) else None
        if shape is None:
            raise InputError(
                f"is a {type(module).__name__}; a bank adapts linear modules",
                file=str(base),
                field=name,
                fix="name others",
            )
        found.append(Module(name=name, inputs=shape[0], outputs=shape[1]))
    if not found:
        shown = wanted if isinstance(wanted, str) else ", ".join(wanted)
        raise InputError(f"has no module {shown[:200]}", file=str(base), fix="correct the names")
    return tuple(found)


def by_name(base: Path | str, names: Sequence[str]) -> Mapping[str, Module]:
    """These modules, each of which must be there.

    Raises:
        InputError: one is not.
    """
    found = {module.name: module for module in modules_of(base, tuple(names))}
    for name in names:
        if name not in found:
            raise InputError(
                "is not a module of this base model",
                file=str(base),
                field=name,
                fix="name the base model that the adapter was trained on",
            )
    return found
