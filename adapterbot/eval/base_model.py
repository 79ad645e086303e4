"""The base model: loaded once per job, never trusted to run code of its own. (torch)"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from adapterbot.errors import InputError, OurFailure, first_line
from adapterbot.eval.found_base import ATTENTION_PACKAGES, FoundBase, device_name, find_base
from adapterbot.eval.heap import keep_freed_memory
from adapterbot.eval.library import import_library
from adapterbot.eval.onednn import multiply_by_onednn, of_intel
from adapterbot.eval.settings import EngineSettings
from adapterbot.importing import for_good
from adapterbot.weights.families import keep_family, model_class
from adapterbot.weights.memory import fitting

# What transformers raises on a model that is broken, or made to break it. Not RuntimeError: a GPU
# without memory is no fault of the model's.
_UNLOADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    KeyError,
    OSError,
    SafetensorError,
    TypeError,
    ValueError,
)
_ROOM = (
    "use a larger device, engine.device_map for several, or engine.quantization; `nvidia-smi` tells"
    " what else is there"
)


@dataclass(frozen=True)
class BaseModel:
    """A loaded base model with its tokenizer.

    Attributes:
        name: how it was named.
        directory: where its files lie.
        digest: SHA-256 of the files it came from.
        eos: token ids that end an answer.
        pad: the id that fills short rows; it is masked, so any id will do.
        context: how many positions the model has, None for no limit known.
    """

    name: str
    directory: Path
    digest: str
    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    eos: frozenset[int]
    pad: int
    context: int | None

    @property
    def device_name(self) -> str:
        """What a reader calls the device."""
        return device_name(self.device)

    @property
    def gpus(self) -> int:
        """How many GPUs its weights lie on."""
        return len({p.device for p in self.model.parameters() if p.device.type == "cuda"})


def load_base(base: Path | str, settings: EngineSettings) -> BaseModel:
    """Finds a causal language model, and loads it with its tokenizer.

    Raises:
        InputError: as `find_base`, or it has no safetensors weights.
        OurFailure: as `find_base`, or the device's memory is too small.
    """
    return load_found(find_base(base, settings))


def load_alone(base: Path | str, settings: EngineSettings) -> BaseModel:
    """As `load_base`, in a process that does nothing else and has imported nothing for it."""
    found = find_base(base, settings)
    with for_good():
        import_library()
    return load_found(found)


def load_found(found: FoundBase) -> BaseModel:
    """As `load_base`, of what `find_base` found."""
    keep_freed_memory()
    from transformers import AutoConfig, AutoTokenizer
    from transformers.utils import logging

    name, place, settings = found.name, str(found.directory), found.settings
    device, dtype = found.device, found.dtype
    if settings.deterministic and device.type == "cuda":
        # On a CPU every kernel used here is deterministic, and the call imports torch's compiler.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else every new tensor is filled with NaN. Nothing here reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with fitting("does not fit into the device's memory", file=name, field="base", fix=_ROOM):
            model, loading = model_class(config).from_pretrained(
                place,
                output_loading_info=True,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                **_placement(settings, device, dtype),
            )
            if not (settings.quantization or settings.device_map):
                model.to(device)
                multiply_by_onednn(model, intel=of_intel())
    except _UNLOADABLE as error:
        raise InputError(
            f"cannot be loaded as a causal language model: {first_line(error)}",
            file=name,
            field="base",
            fix="name a directory with config.json, tokenizer and safetensors weights",
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if loading["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise InputError(
            f"lacks {len(loading['missing_keys'])} tensors, such as {min(loading['missing_keys'])}",
            file=name,
            field="base",
            fix="save the whole model again",
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        # accelerate fetches such weights layer by layer, and there is nothing to put adapters on.
        raise OurFailure(
            "does not fit into the memory of all GPUs together", file=name, field="base", fix=_ROOM
        )
    keep_family(model, config)
    # By which adapters and banks tell their own base from another, and not by a folder of a cache.
    model.config.name_or_path = name
    model.eval().requires_grad_(requires_grad=False)
    eos = _eos(model, tokenizer)
    return BaseModel(
        name=name,
        directory=found.directory,
        digest=found.digest,
        model=model,
        tokenizer=tokenizer,
        device=model.device,
        dtype=dtype,
        eos=eos,
        pad=_pad(model, tokenizer),
        context=_context(model),
    )


def _placement(
    settings: EngineSettings, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Where the weights go and in which form, as transformers takes it."""
    options: dict[str, Any] = {}
    if settings.attn_implementation:
        options["attn_implementation"] = settings.attn_implementation
    if settings.attn_implementation in ATTENTION_PACKAGES:
        _require(ATTENTION_PACKAGES[settings.attn_implementation], "attn_implementation")
    if settings.device_map:
        _require("accelerate", "device_map")
        options["device_map"] = settings.device_map
    if settings.quantization:
        _require("accelerate", "quantization")
        _require("bitsandbytes", "quantization")
        from transformers import BitsAndBytesConfig

        # In 8 bits it says of every layer, in every pass, that bf16 is cast to fp16.
        logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
        four = settings.quantization == "4bit"
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=four,
            load_in_8bit=not four,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_type="nf4",
        )
        options.setdefault("device_map", {"": device})
    return options


def _require(package: str, setting: str) -> None:
    if find_spec(package) is None:
        extra = "pip install 'adapterbot[quantize]'"
        raise OurFailure(
            f"needs the package {package}, which is not installed",
            field=f"engine.{setting}",
            fix=f"pip install {package}" if package.startswith("flash") else extra,
        )


def _eos(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that transformers' own `generate` would stop at."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found) if isinstance(found, list) else frozenset({int(found)})


def _pad(model: Any, tokenizer: Any) -> int:
    """The tokenizer's own, unless it was added to the tokenizer and never to the model."""
    pad = tokenizer.pad_token_id
    embedded = model.get_input_embeddings().weight.shape[0]
    return int(pad) if pad is not None and pad < embedded else 0


def _context(model: Any) -> int | None:
    text = model.config.get_text_config()
    found = getattr(text, "max_position_embeddings", None)
    return int(found) if found else None
