"""A base model's directory, looked at before transformers builds what it describes. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.weights.header import read_header
from adapterbot.weights.peft_dir import CONFIG_NAME

# A tokenizer of 256 k entries takes 35 MB.
_TOKENIZER_LIMIT = 128 * 1024 * 1024
_CONFIG_LIMIT = 1024 * 1024
_INDEX_LIMIT = 64 * 1024 * 1024
# Doge's config says so many, others a few hundred; transformers may make a module for each.
_MOST_EXPERTS = 16_384
# Fields of config.json by which transformers would load other files, or run other code, than the
# weights beside it, and the values that do not.
_LOADS_MORE = {
    "transformers_weights": (None,),
    "_attn_implementation": (None, "eager", "sdpa"),
    "attn_implementation": (None, "eager", "sdpa"),
}


def inspect_base(directory: Path, name: str) -> None:
    """Before transformers sees a directory, which may be a stranger's.

    Args:
        name: how the base was named.

    Raises:
        InputError: it is no directory, or an adapter's. Or its config points at weights or code
            that are not the safetensors beside it, or claims a model that is larger than these
            weights can fill.
    """
    if there.exists(directory / CONFIG_NAME):
        # transformers would follow it to whatever base it names.
        raise InputError(
            "is an adapter, not a base model", file=name, field="base", fix="name the base model"
        )
    if not there.is_dir(directory):
        # transformers would read a config alone, too.
        raise InputError(
            "is not a directory", file=name, field="base", fix="name the base model's directory"
        )
    for file in sorted(directory.glob("*.json")):
        config = _object(file)
        if file.name == "config.json":
            _refuse_hollow(config, directory, file)
        for field, harmless in _LOADS_MORE.items():
            if config.get(field) not in harmless:
                raise InputError(
                    "is refused: it makes transformers load other code or weights",
                    file=str(file),
                    field=field,
                    fix="remove it",
                )
        shards = config.get("weight_map")
        for shard in shards.values() if isinstance(shards, dict) else ():
            if not isinstance(shard, str) or Path(shard).name != shard:
                raise InputError(
                    f"names the shard {shard!r}, which is not in the folder",
                    file=str(file),
                    field="weight_map",
                    fix="keep every shard beside the index",
                )


def _object(file: Path) -> dict[str, object]:
    """A JSON file's content; empty where it holds no object, which transformers will say."""
    limit = _CONFIG_LIMIT
    if file.name.startswith("tokenizer") or file.name in ("vocab.json", "added_tokens.json"):
        limit = _TOKENIZER_LIMIT
    elif file.name.endswith(".index.json"):
        limit = _INDEX_LIMIT
    if file.stat().st_size > limit:
        raise InputError(
            f"is {file.stat().st_size:,} bytes long",
            file=str(file),
            fix=f"shorten it to {limit:,}",
        )
    if limit == _TOKENIZER_LIMIT:
        return {}  # nothing of ours is in it, and it may be long
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_hollow(config: Mapping[str, object], directory: Path, file: Path) -> None:
    """Every layer that a config claims has a tensor at least, and is built before any is missed."""
    tensors = _tensors(directory)
    for field, value in _numbers(config):
        # Not `shared_expert_intermediate_size`, which is a width.
        experts = field.endswith("experts")
        most = _MOST_EXPERTS if experts else tensors
        # Not Qwen's `max_window_layers`, a bound that says 28 whatever the model's depth.
        bound = field.rpartition(".")[2].startswith("max_")
        deep = field.endswith(("layers", "layer", "n_layer")) and not bound
        if (experts or deep) and most is not None and value > most:
            raise InputError(
                f"claims {value:,}, more than the {most:,} "
                + ("that any model has" if experts else "tensors of the weights"),
                file=str(file),
                field=field,
                fix="save the model again, config and weights together",
            )


def _numbers(config: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    for field, value in config.items():
        if isinstance(value, dict):
            yield from ((f"{field}.{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, int):
            yield field, value
        elif isinstance(value, list):
            # One entry per layer, such as `layer_types`.
            yield f"{field}: layer" if "layer" in field else field, len(value)


def _tensors(directory: Path) -> int | None:
    """How many tensors the weights hold; None where there are none to count."""
    files = sorted(directory.glob("*.safetensors"))
    return sum(len(read_header(file).tensors) for file in files) if files else None
