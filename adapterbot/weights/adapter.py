"""A LoRA adapter's tensors in memory, and its ΔW. (torch)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapterbot.errors import InputError
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import AdapterFiles, read_adapter_dir

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class LowRank:
    """The update of one module: ΔW = s·B·A.

    Shapes: `a` (rank, in), `b` (out, rank); `scale` is s. For an embedding `in` is the vocabulary
    and `out` the width. For a convolution `kernel` is its shape and `a` is (rank, in·kernel).
    """

    a: Tensor
    b: Tensor
    scale: float
    embedding: bool = False
    kernel: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """How many ranks the update has."""
        return int(self.a.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """The type that holds both factors."""
        return torch.promote_types(self.a.dtype, self.b.dtype)


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
        GPT-2's Conv1D it is the transpose of that module's weight as well. For a convolution it
        has the shape of its weight.

        Raises:
            KeyError: the adapter does not touch `module`.
        """
        update = self.updates[module]
        dtype = torch.promote_types(update.a.dtype, torch.float32)
        delta = update.scale * (update.b.to(dtype) @ update.a.to(dtype))
        return delta.reshape(len(delta), -1, *update.kernel) if update.kernel else delta


class Lazily(Mapping[str, _Value]):
    """A mapping whose values are made when they are asked for, and not kept.

    So a walk over many adapters holds one layer of each at a time.
    """

    def __init__(self, keys: Iterable[str], make: Callable[[str], _Value]) -> None:
        self._keys = dict.fromkeys(keys)
        self._make = make

    def __getitem__(self, key: str) -> _Value:
        if key not in self._keys:
            raise KeyError(key)
        return self._make(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def load_adapter(source: Path | str | AdapterFiles) -> Adapter:
    """The LoRA adapter in a PEFT directory, on the CPU, in the precision it was saved in.

    Args:
        source: the directory, or what `read_adapter_dir` said of it.

    Raises:
        InputError: as `read_adapter_dir`; or the adapter is of a kind that is not ΔW = s·B·A; or a
            tensor holds NaN or infinity.
    """
    files, config = _plain_lora(source)
    names = [name for entry in files.modules.values() for name in (entry.a, entry.b)]
    tensors = _read_tensors(files, [*names, *files.replaced.values()])
    updates = {module: _update(files, config, module, tensors) for module in files.modules}
    replaced = {parameter: tensors[name] for parameter, name in files.replaced.items()}
    return Adapter(files, config, updates, replaced)


def open_adapter(source: Path | str | AdapterFiles) -> Adapter:
    """As `load_adapter`, but every tensor is read, and checked, when it is asked for.

    Raises:
        InputError: as `load_adapter`; what is wrong with a tensor comes up when it is read.
    """
    files, config = _plain_lora(source)

    def update(module: str) -> LowRank:
        entry = files.modules[module]
        return _update(files, config, module, _read_tensors(files, [entry.a, entry.b]))

    def whole(parameter: str) -> Tensor:
        name = files.replaced[parameter]
        return _read_tensors(files, [name])[name]

    return Adapter(files, config, Lazily(files.modules, update), Lazily(files.replaced, whole))


def _plain_lora(source: Path | str | AdapterFiles) -> tuple[AdapterFiles, LoraConfig]:
    files = source if isinstance(source, AdapterFiles) else read_adapter_dir(source)
    if not isinstance(files.config, LoraConfig) or files.left_to_peft:
        raise InputError(
            "is not plain LoRA, so it has no ΔW = s·B·A",
            file=files.config_shown,
            field=", ".join(files.left_to_peft),
            fix="use an adapter without it",
        )
    return files, files.config


def _update(
    files: AdapterFiles, config: LoraConfig, module: str, tensors: Mapping[str, Tensor]
) -> LowRank:
    entry = files.modules[module]
    return LowRank(
        tensors[entry.a].flatten(1),
        tensors[entry.b].flatten(1),
        config.scale(module),
        entry.embedding,
        entry.kernel,
    )


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
