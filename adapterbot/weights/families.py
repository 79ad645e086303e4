"""Families of models: one class reads text alone, another looks at pictures as well. (torch)

Qwen3.5, Llama 4 and Gemma 3 have both classes for the same weights, under other names. That is
loaded which transformers takes for a language model, the one for text where it can be; adapters
were trained on either.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

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

    if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return
    text = config.get_text_config()
    if type(config) is not type(model.config):
        setattr(model, _FAMILY, _Family(transformers.AutoModelForImageTextToText, config))
    elif type(text) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and text is not config:
        setattr(model, _FAMILY, _Family(transformers.AutoModelForCausalLM, text))


def as_named(model: nn.Module, names: Collection[str]) -> nn.Module:
    """What the names of an adapter are of: `model`, or its twin, the other class of its family.

    The twin has the modules of `model` itself for all that reads text. Others, which look at
    pictures and which text does not reach, are on the meta device: they have names, kinds and
    shapes, and no weights.

    Args:
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
    """How the twin of a model is made, and the twin once somebody has asked for it."""

    def __init__(self, loader: Any, config: Any) -> None:
        self._loader = loader
        self._config = config
        self._twin: nn.Module | None = None

    def twin(self, model: nn.Module) -> nn.Module:
        """The twin of `model`, made when it is first asked for; itself where the two read text by
        modules of different kinds."""
        if self._twin is None:
            self._twin = self._made(model) or model
        return self._twin

    def _made(self, model: Any) -> nn.Module | None:
        with torch.device("meta"):
            twin = self._loader.from_config(self._config, trust_remote_code=False)
        paths = {module: path for path, module in twin.named_modules()}
        # Not the model's own get_decoder, which of Llama 3.2 gives the model itself.
        kind = type(twin.get_decoder())
        decoder = next((one for one in model.modules() if type(one) is kind), None)
        if decoder is None:
            return None
        shared = {
            paths[twin.get_decoder()]: decoder,
            paths[twin.get_output_embeddings()]: model.get_output_embeddings(),
        }
        for path, module in shared.items():
            twin.set_submodule(path, module)
        return cast("nn.Module", twin.eval())
