"""Adapters of one base put together into one: whose modules, whose options, whose whole tensors.

What is done to the low-rank updates of a module is the caller's (`merge_linear` adds them, a merge
strategy may do more); which updates belong together, and what becomes of everything that is not
low-rank, is decided here. Nothing is computed before it is asked for. (torch)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from adapterbot.errors import InputError
from adapterbot.weights.adapter import Adapter, Lazily, LowRank
from adapterbot.weights.header import Header, read_header
from adapterbot.weights.lowrank import combined, recompressed, shape
from adapterbot.weights.matching import saved_whole
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import AdapterFiles
from adapterbot.weights.trained_on import check_together, said_base

# What becomes of the (w, ΔW) pairs of one module; the module's name comes along.
Combine = Callable[[str, Sequence[tuple[float, LowRank]]], LowRank]

# One weight per adapter; or what gives them for a module or parameter, by its name.
Weighing = Sequence[float] | NDArray[np.floating] | Callable[[str], Sequence[float]]

_TARGETING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def merge_linear(
    adapters: Sequence[Adapter],
    weights: Weighing,
    rank: int | None = None,
    *,
    base: Path | None = None,
) -> Adapter:
    """The adapter whose ΔW is Σ wᵢ ΔWᵢ, exactly, or its best approximation of rank `rank`.

    Args:
        adapters: of one base model; ranks, scales, modules and dtypes may differ.
        weights: one per adapter, of any sign; or a function of the module's name that gives them.
        rank: the most ranks a module may have; None concatenates them and loses nothing.
        base: the base model's directory; needed where a parameter that was saved whole (a bias,
            a head) has weights that do not add up to 1, so that the base's own value counts.

    Raises:
        ValueError: the rank is below 1; or as `merge_with`.
        InputError: the adapters have different bases, or cannot be added.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank is {rank}, and must be 1 or more")

    def added(_: str, terms: Sequence[tuple[float, LowRank]]) -> LowRank:
        whole = combined(terms)
        if rank is None or whole.rank <= rank:
            return whole
        return recompressed(combined(terms, dtype=torch.float64), rank, dtype=whole.dtype)

    return merge_with(added, adapters, weights, base=base)


def merge_with(
    combine: Combine,
    adapters: Sequence[Adapter],
    weights: Weighing,
    *,
    base: Path | None = None,
) -> Adapter:
    """As `merge_linear`, the low-rank updates of each module put together by `combine`.

    Updates are computed layer by layer, each time they are asked for.

    Raises:
        ValueError: there are no adapters, or not as many weights.
        InputError: they have different bases or classes of one, or parts that cannot be merged.
    """
    given = weights if callable(weights) else [float(weight) for weight in weights]
    if not adapters or (not callable(given) and len(adapters) != len(given)):
        raise ValueError("one weight for each of at least one adapter")
    weigh = given if callable(given) else lambda _: given
    check_together([adapter.files for adapter in adapters])
    modules = {module: None for adapter in adapters for module in adapter.updates}
    parameters = {name: None for adapter in adapters for name in adapter.replaced}
    config = _merged_config(adapters, tuple(modules))
    _refuse_both_ways(adapters, config)
    whole = _WholeSums(adapters, weigh, base)

    def update(module: str) -> LowRank:
        terms = [
            (weight, adapter.updates[module])
            for weight, adapter in zip(weigh(module), adapters, strict=True)
            if module in adapter.updates
        ]
        _refuse_unlike(module, terms, adapters)
        return combine(module, terms)

    shown = " + ".join(adapter.files.shown for adapter in adapters)
    files = AdapterFiles(Path(shown), shown, config, Header({}, {}), {}, {}, ())
    return Adapter(
        files, config, Lazily(modules, update), Lazily(whole.checked(parameters), whole.value)
    )


def _merged_config(adapters: Sequence[Adapter], modules: tuple[str, ...]) -> LoraConfig:
    configs = [adapter.config for adapter in adapters]
    options: dict[str, object] = {"target_modules": tuple(sorted(modules))}
    same = all(
        getattr(config, name) == getattr(configs[0], name)
        for config in configs
        for name in _TARGETING
    )
    if same and all(set(adapter.updates) == set(modules) for adapter in adapters):
        options = {name: getattr(configs[0], name) for name in _TARGETING}
    saved = sorted({name for config in configs for name in config.modules_to_save or ()})
    biases = {config.bias for config in configs}
    base, revision = said_base(configs)
    return LoraConfig.model_validate(
        {
            "peft_type": "LORA",
            "task_type": configs[0].task_type,
            "base_model_name_or_path": base,
            "revision": revision,
            "modules_to_save": tuple(saved) or None,
            "bias": next((b for b in ("all", "lora_only") if b in biases), "none"),
            "fan_in_fan_out": any(config.fan_in_fan_out for config in configs),
            "inference_mode": True,
            **options,
        }
    )


def _refuse_unlike(
    module: str, terms: Sequence[tuple[float, LowRank]], adapters: Sequence[Adapter]
) -> None:
    first = terms[0][1]
    for _, update in terms:
        if shape(update) != shape(first) or update.embedding != first.embedding:
            raise InputError(
                f"is {_size(first)} in one adapter and {_size(update)} in another",
                file=" and ".join(adapter.files.weights_shown for adapter in adapters),
                field=module,
                fix="merge adapters that were trained on the same base model",
            )


def _size(update: LowRank) -> str:
    return " × ".join(map(str, shape(update)))


def _refuse_both_ways(adapters: Sequence[Adapter], config: LoraConfig) -> None:
    """One adapter's low-rank module must not be another's `modules_to_save`: PEFT trains a copy."""
    for adapter in adapters:
        for module in adapter.updates:
            if saved_whole(config.modules_to_save, module):
                raise InputError(
                    "has low-rank weights here, and is saved whole in another adapter",
                    file=adapter.files.weights_shown,
                    field=module,
                    fix="merge adapters that train it in the same way",
                )


class _WholeSums:
    """Parameters that were saved whole: P₀ + Σ wᵢ (Pᵢ − P₀), over the adapters that have one."""

    def __init__(
        self,
        adapters: Sequence[Adapter],
        weigh: Callable[[str], Sequence[float]],
        base: Path | None,
    ) -> None:
        self._adapters = adapters
        self._weigh = weigh
        self._base = base

    def checked(self, parameters: Mapping[str, None]) -> tuple[str, ...]:
        """`parameters`, each of which can be computed."""
        for name in parameters:
            held = self._held(name)
            if self._of_base(held) and self._base is None:
                raise InputError(
                    "is saved whole with weights that do not add up to 1, so the base's own value"
                    " counts",
                    file=held[0][1].files.weights_shown,
                    field=name,
                    fix="name the base model's directory",
                )
        return tuple(parameters)

    def value(self, name: str) -> Tensor:
        """The merged parameter, in the dtype of the first adapter that has it."""
        held = self._held(name)
        first = held[0][1].replaced[name]
        if not first.is_floating_point():
            return first
        total = sum((w * adapter.replaced[name].double() for w, adapter in held), torch.zeros(()))
        rest = self._of_base(held)
        if rest and self._base is not None:
            total = total + rest * _base_parameter(self._base, name).double()
        return total.to(first.dtype)

    def _held(self, name: str) -> list[tuple[float, Adapter]]:
        pairs = zip(self._weigh(name), self._adapters, strict=True)
        return [(weight, adapter) for weight, adapter in pairs if name in adapter.replaced]

    @staticmethod
    def _of_base(held: Sequence[tuple[float, Adapter]]) -> float:
        rest = 1.0 - sum(weight for weight, _ in held)
        return rest if abs(rest) > 1e-9 else 0.0


# An output head that shares its weight with the input embedding is not stored a second time.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


def _base_parameter(base: Path, name: str) -> Tensor:
    places = {
        tensor: shard
        for shard in sorted(base.glob("*.safetensors"))
        for tensor in read_header(shard).tensors
    }
    found = name if name in places else _tied_to(places, name)
    if found is None:
        raise InputError(
            "is not among the base model's weights",
            file=str(base),
            field=name,
            fix="name the base model that the adapters were trained on",
        )
    with safe_open(places[found], framework="pt", device="cpu") as stream:
        tensor: Tensor = stream.get_tensor(found)
    return tensor


def _tied_to(places: Mapping[str, Path], name: str) -> str | None:
    if not name.endswith(("lm_head.weight", "embed_out.weight")):
        return None
    return next((tensor for tensor in places if tensor.endswith(_EMBEDDINGS)), None)
