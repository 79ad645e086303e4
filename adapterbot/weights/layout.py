"""Which module or parameter of the base model each tensor of a LoRA file belongs to, by the names
that PEFT gives them. No torch and no PEFT: names, kinds and shapes say it all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapterbot.errors import InputError
from adapterbot.weights.header import Header, TensorInfo
from adapterbot.weights.options import LoraConfig

PREFIX = "base_model.model."
"""What PEFT puts before the name that a tensor has in the base model."""
# Of the kernels of Conv1d, Conv2d and Conv3d, whose factors are matrices with a kernel each.
_KERNEL_DIMENSIONS = 3
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
# What PEFT saves: numbers that are trained, and indices. torch itself cannot look for NaN among
# numbers of eight bits and fewer, and a base model's parameters have no imaginary part.
_STORED = _FLOATS | {"BOOL", "I8", "I16", "I32", "I64", "U8"}

# The tensor names under which PEFT stores the two factors of one module.
_FACTORS = {
    ".lora_A.weight": ("A", False),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_A": ("A", True),
    ".lora_embedding_B": ("B", True),
}

_FULL = "save the adapter again from a full-precision model"
_BY_PEFT = "save the adapter with PEFT's `save_pretrained`"


@dataclass(frozen=True)
class LowRankEntry:
    """Where one module's factors lie: A (rank, in) and B (out, rank) by tensor name.

    For an embedding, `in` is the vocabulary and `out` the width. For a convolution A is
    (rank, in, *kernel) and B (out, rank, 1, …).
    """

    a: str
    b: str
    rank: int
    in_features: int
    out_features: int
    embedding: bool
    kernel: tuple[int, ...] = ()


def check_kinds(header: Header, shown: str) -> None:
    """Refuses numbers of a kind that PEFT saves nothing in.

    Raises:
        InputError: with the first tensor that holds such numbers.
    """
    for name, info in header.tensors.items():
        if info.dtype not in _STORED:
            raise _wrong(shown, name, f"is {info.dtype}, which PEFT does not save", _FULL)


def layout(
    config: LoraConfig, header: Header, shown: str
) -> tuple[dict[str, LowRankEntry], dict[str, str]]:
    """The low-rank pairs by module, and for each parameter that was saved whole its tensor.

    Raises:
        InputError: a tensor lies where PEFT would not look for it, is there twice, or is not of the
            shape that the options announce.
    """
    factors: dict[str, dict[str, tuple[str, TensorInfo, bool]]] = {}
    whole: list[str] = []
    for tensor, info in header.tensors.items():
        if not tensor.startswith(PREFIX):
            problem = f"does not start with {PREFIX!r}, as PEFT writes it"
            raise _wrong(shown, tensor, problem, _BY_PEFT)
        name = tensor.removeprefix(PREFIX)
        suffix = next((suffix for suffix in _FACTORS if name.endswith(suffix)), None)
        if suffix is None:
            whole.append(name)
            continue
        side, embedding = _FACTORS[suffix]
        most = 2 if embedding else 2 + _KERNEL_DIMENSIONS
        if info.dtype not in _FLOATS or not 2 <= len(info.shape) <= most:
            problem = f"is {info.dtype} with {len(info.shape)} dimensions"
            raise _wrong(shown, tensor, f"{problem}; a factor is a float matrix", _FULL)
        sides = factors.setdefault(name.removesuffix(suffix), {})
        if side in sides:
            raise _wrong(shown, tensor, f"is a second {side} beside {sides[side][0]}", _BY_PEFT)
        sides[side] = (tensor, info, embedding)
    if not header.tensors:
        raise InputError("holds no tensor", file=shown, fix="save the trained adapter")
    modules = {module: _pair(config, module, sides, shown) for module, sides in factors.items()}
    return modules, {_saved_parameter(name, modules, shown): PREFIX + name for name in whole}


def _saved_parameter(name: str, modules: Mapping[str, LowRankEntry], shown: str) -> str:
    """The base parameter that a tensor replaces, from the name PEFT gave it: PEFT wraps a module
    that has low-rank weights, whose own parameters then lie one deeper, in `base_layer`.

    It drops a tensor that lies elsewhere in silence. To take it would be to judge another adapter
    than the one that people load.
    """
    if ".lora_" in name:
        raise _wrong(
            shown,
            PREFIX + name,
            "is a LoRA tensor that no option of adapter_config.json announces",
            "save the adapter again, so that options and weights agree",
        )
    place, _, leaf = name.rpartition(".")
    module = place.removesuffix(".base_layer")
    if (module in modules) != (module != place):
        where = f"{module}.base_layer.{leaf}" if module in modules else f"{module}.{leaf}"
        problem = f"would be dropped by PEFT, which looks for {where}"
        raise _wrong(shown, PREFIX + name, problem, _BY_PEFT)
    return f"{module}.{leaf}" if module else leaf


def _pair(
    config: LoraConfig,
    module: str,
    sides: Mapping[str, tuple[str, TensorInfo, bool]],
    shown: str,
) -> LowRankEntry:
    if set(sides) != {"A", "B"} or sides["A"][2] != sides["B"][2]:
        problem = f"has only {', '.join(sorted(sides))} of its two factors"
        raise _wrong(shown, module, problem, "push the whole file")
    (a, a_info, embedding), (b, b_info, _) = sides["A"], sides["B"]
    rank = config.rank(module)
    shapes = f"has factors of shape {a_info.shape} and {b_info.shape}"
    if a_info.shape[0] != rank or b_info.shape[1] != rank:
        fix = "push adapter_config.json and the weights of the same training run"
        raise _wrong(shown, module, f"{shapes}, but the options say rank {rank}", fix)
    kernel = a_info.shape[2:]
    if b_info.shape[2:] != (1,) * len(kernel):
        raise _wrong(shown, module, f"{shapes}; B must have a kernel of ones", _BY_PEFT)
    return LowRankEntry(a, b, rank, a_info.shape[1], b_info.shape[0], embedding, kernel)


def _wrong(shown: str, field: str, problem: str, fix: str) -> InputError:
    return InputError(problem, file=shown, field=field, fix=fix)
