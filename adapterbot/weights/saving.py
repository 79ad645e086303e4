"""An adapter written as a PEFT directory, tensor by tensor, so that none has to fit into memory.

A safetensors header may be padded with spaces; so the room for it is left free, the tensors are
written behind it one after the other, and the header goes in last. (torch)
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from adapterbot.errors import InputError, OurFailure
from adapterbot.files import there
from adapterbot.files.atomic import keep_entries, not_written, temporary, write_text
from adapterbot.weights.adapter import Adapter
from adapterbot.weights.layout import PREFIX
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# What a header entry takes besides its name: dtype, five sizes and two offsets, all at their most.
_ENTRY_BYTES = 300


def save_adapter(adapter: Adapter, directory: Path | str) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, as PEFT would.

    The tensors are asked for one after the other, so an adapter that is computed lazily needs the
    memory of one layer. The files replace those of `directory` when they are whole.

    Raises:
        InputError: the directory cannot be written, or a number is not finite in its type.
        OurFailure: the disk is full; what was there before is untouched.
    """
    target = Path(directory)
    if target.is_symlink() or (there.exists(target) and not there.is_dir(target)):
        raise InputError("is not a directory", file=str(directory), fix="name another")
    config = adapter.config
    names = [*adapter.updates, *adapter.replaced]
    room = 1024 + sum(2 * (len(name.encode()) + _ENTRY_BYTES) for name in names)
    ranks: dict[str, tuple[int, float]] = {}
    weights = temporary(target / WEIGHTS_NAME, shown=target)
    try:
        with weights.open("wb") as stream:
            _write_tensors(stream, _tensors(adapter, ranks), room)
        config = _with_ranks(config, ranks)
        write_text(target / CONFIG_NAME, _json(config))
        weights.chmod((target / CONFIG_NAME).stat().st_mode)
        weights.replace(target / WEIGHTS_NAME)
        keep_entries(target)
    except OSError as error:
        raise not_written(directory, error) from error
    finally:
        weights.unlink(missing_ok=True)


def _tensors(adapter: Adapter, ranks: dict[str, tuple[int, float]]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under the name that PEFT gives it; notes rank and scale of what it passes."""
    for module in sorted(adapter.updates):
        update = adapter.updates[module]
        ranks[module] = (update.rank, update.scale)
        a, b = update.a, update.b
        if update.kernel:
            a = a.reshape(update.rank, -1, *update.kernel)
            b = b.reshape(*b.shape, *[1] * len(update.kernel))
        pattern = "{}.lora_embedding_{}" if update.embedding else "{}.lora_{}.weight"
        yield PREFIX + pattern.format(module, "A"), a
        yield PREFIX + pattern.format(module, "B"), b
    for parameter in sorted(adapter.replaced):
        module, _, leaf = parameter.rpartition(".")
        # PEFT wraps a module that has low-rank weights; its own parameters then lie one deeper.
        name = f"{module}.base_layer.{leaf}" if module in ranks else parameter
        yield PREFIX + name, adapter.replaced[parameter]


def _write_tensors(stream: BinaryIO, tensors: Iterator[tuple[str, Tensor]], room: int) -> None:
    room += -room % 8
    stream.seek(8 + room)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"does not fit into {str(tensor.dtype).removeprefix('torch.')}",
                field=name,
                fix="use smaller weights, or inputs of a wider type",
            )
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        stream.write(memoryview(raw))
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + raw.nbytes],
        }
        end += raw.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > room:
        raise OurFailure("the header needs more room than its names say", fix="report this")
    stream.seek(0)
    stream.write(room.to_bytes(8, "little") + text.ljust(room, b" "))
    stream.flush()
    os.fsync(stream.fileno())


def _with_ranks(config: LoraConfig, ranks: dict[str, tuple[int, float]]) -> LoraConfig:
    """Options that announce these ranks and scales; the adapter's own where they do."""
    if all((config.rank(m), config.scale(m)) == held for m, held in ranks.items()):
        return config
    common = Counter((rank, scale * rank) for rank, scale in ranks.values())
    r, alpha = common.most_common(1)[0][0]
    # Anchored, so that no pattern can match the end of another module's name.
    patterns = {module: f"^{re.escape(module)}" for module in ranks}
    return config.model_copy(
        update={
            "r": r,
            "lora_alpha": alpha,
            "use_rslora": False,
            "rank_pattern": {patterns[m]: k for m, (k, _) in ranks.items() if k != r},
            "alpha_pattern": {patterns[m]: s * k for m, (k, s) in ranks.items() if s * k != alpha},
        }
    )


def _json(config: LoraConfig) -> str:
    options = config.model_dump(mode="json")
    # PEFT itself writes whole alphas as integers.
    if float(config.lora_alpha).is_integer():
        options["lora_alpha"] = int(config.lora_alpha)
    return json.dumps(options, indent=2, sort_keys=True) + "\n"
