"""Families of models: one class reads text alone, another looks at pictures as well. (torch)

Qwen3.5 and Llama 4 have both classes for the same weights, under other names. The one that reads
text is loaded, since that is what is asked; adapters were trained on either.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

_FAMILY = "adapterbot_family"


def model_class(config: Any) -> Any:
    """The class that loads a model of this kind: where a family has none but those that also look
    at pictures (Qwen2.5-VL, Mistral Small 3), such a one, which is asked without."""
    import transformers

    kind = type(config)
    reads_text = kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if not reads_text and kind in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def keep_family(model: Any, config: Any) -> None:
    """Has `as_named` know what `model` was made from.

    Args:
        model: a model of `model_class(config)`.
        config: of all of it, pictures included; the model's own may be that of the text alone.
    """
    import transformers

    pictured = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if type(config) is not type(model.config) and type(config) in pictured:
        setattr(model, _FAMILY, _Family(config))


def as_named(model: nn.Module, names: Collection[str]) -> nn.Module:
    """What the names of an adapter are of: `model`, or its twin that also looks at pictures.

    The twin has the modules of `model` itself for all that reads text. The others, which text does
    not reach, are on the meta device: they have names, kinds and shapes, and no weights.

    Args:
        model: as loaded.
        names: dotted, of modules or of what belongs to them.
    """
    family: _Family | None = getattr(model, _FAMILY, None)
    if family is None or set(names) <= dict(model.named_modules()).keys():
        return model
    return max((model, family.twin(model)), key=lambda one: _known(one, names))


def _known(model: nn.Module, names: Collection[str]) -> int:
    """How many parts of the names lead to a module."""
    modules = {name for name, _ in model.named_modules()}
    parts = [name.split(".") for name in names]
    return sum(".".join(path[:end]) in modules for path in parts for end in range(1, len(path) + 1))


class _Family:
    """What a model was made from, and its twin once somebody has asked for it."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._twin: nn.Module | None = None

    def twin(self, model: nn.Module) -> nn.Module:
        """The twin of `model`, made when it is first asked for."""
        if self._twin is None:
            self._twin = _twin(model, self._config)
        return self._twin


def _twin(model: Any, config: Any) -> nn.Module:
    import transformers

    with torch.device("meta"):
        twin = transformers.AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    paths = {module: path for path, module in twin.named_modules()}
    # Not the model's own get_decoder, which of Llama 3.2 gives the model itself.
    decoder = next(one for one in model.modules() if type(one) is type(twin.get_decoder()))
    shared = {
        paths[twin.get_decoder()]: decoder,
        paths[twin.get_output_embeddings()]: model.get_output_embeddings(),
    }
    for path, module in shared.items():
        twin.set_submodule(path, module)
    return twin.eval()
