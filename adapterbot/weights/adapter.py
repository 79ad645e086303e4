"""A LoRA adapter's tensors in memory, and its ΔW. (torch)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapterbot.errors import InputError
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir


@dataclass(frozen=True)
class LowRank:
    """The update of one module: ΔW = s·B·A.

    Shapes: `a` (rank, in), `b` (out, rank); `scale` is s. For an embedding `in` is the vocabulary
    and `out` the width.
    """

    a: Tensor
    b: Tensor
    scale: float
    embedding: bool = False

    @property
    def rank(self) -> int:
        """How many ranks the update has."""
        return int(self.a.shape[0])


@dataclass(frozen=True)
class Adapter:
    """A loaded LoRA adapter.

    Attributes:
        files: the checked directory it came from.
        config: its options.
        updates: module name in the base model → low-rank update.
        replaced: parameter name in the base model → the tensor that takes its place.
    """

    files: AdapterFiles
    config: LoraConfig
    updates: Mapping[str, LowRank]
    replaced: Mapping[str, Tensor]

    def delta_weight(self, module: str) -> Tensor:
        """ΔW = s·B·A of `module`, shape (out, in), in fp32 or wider.

        For an embedding this is (width, vocabulary), the transpose of `nn.Embedding.weight`; for
        GPT-2's Conv1D it is the transpose of that module's weight as well.

        Raises:
            KeyError: the adapter does not touch `module`.
        """
        update = self.updates[module]
        dtype = torch.promote_types(update.a.dtype, torch.float32)
        return update.scale * (update.b.to(dtype) @ update.a.to(dtype))


def load_adapter(source: Path | str | AdapterFiles) -> Adapter:
    """The LoRA adapter in a PEFT directory, on the CPU, in the precision it was saved in.

    Args:
        source: the directory, or what `read_adapter_dir` said of it.

    Raises:
        InputError: as `read_adapter_dir`; or the adapter is of a kind that is not ΔW = s·B·A; or a
            tensor holds NaN or infinity.
    """
    files = source if isinstance(source, AdapterFiles) else read_adapter_dir(source)
    config = files.config
    if not isinstance(config, LoraConfig) or files.left_to_peft:
        raise InputError(
            "is not plain LoRA, so it has no ΔW = s·B·A",
            file=files.config_shown,
            field=", ".join(files.left_to_peft),
            fix="use an adapter without it",
        )
    names = [name for entry in files.modules.values() for name in (entry.a, entry.b)]
    tensors = _read_tensors(files, [*names, *files.replaced.values()])
    updates = {
        module: LowRank(tensors[e.a], tensors[e.b], config.scale(module), e.embedding)
        for module, e in files.modules.items()
    }
    replaced = {parameter: tensors[name] for parameter, name in files.replaced.items()}
    return Adapter(files, config, MappingProxyType(updates), MappingProxyType(replaced))


def _read_tensors(files: AdapterFiles, names: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(files.weights_path, framework="pt", device="cpu") as stream:
            tensors = {name: stream.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(
            f"cannot be read: {error}", file=files.weights_shown, fix="push the whole file again"
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                "holds NaN or infinity",
                file=files.weights_shown,
                field=name,
                fix="this checkpoint diverged in training: choose an earlier one",
            )
    return tensors
