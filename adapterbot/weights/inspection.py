"""Adapters looked at without running them: how far apart two are, and whether one is sound.

Everything is measured on ΔW, which decides what the model says: how an adapter splits it into A and
B does not, and tells nothing (rescaled factors look like outliers, flipped signs like a change).
(torch)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open

from adapterbot.errors import InputError
from adapterbot.records.bisect import LayerChange
from adapterbot.records.inspection import (
    AdapterDiff,
    ModuleDiff,
    ScanFinding,
    ScanReport,
    Severity,
    WholeDiff,
)
from adapterbot.weights.adapter import Adapter, LowRank, open_adapter
from adapterbot.weights.layers import layer_of
from adapterbot.weights.lowrank import (
    combined,
    effective_rank,
    inner,
    norm,
    shape,
    singular_values,
)
from adapterbot.weights.options import LoraConfig
from adapterbot.weights.peft_dir import (
    AdapterFiles,
    adapter_digest,
    read_adapter_dir,
    refuse_no_adapter,
)
from adapterbot.weights.trained_on import (
    base_shapes,
    check_base,
    check_same_base,
    strangers,
    unsaved,
)

_Value = TypeVar("_Value")

# An outlier lies this many robust standard deviations from the median of its like on the log scale,
# and is this many times as large: both, since a family of nearly equal modules has a tiny spread.
_DEVIATIONS = 6.0
_FACTOR = 4.0
_FEWEST = 4
_MAD_TO_SD = 1.4826


def compare(a: Adapter, b: Adapter) -> AdapterDiff:
    """Per module ‖ΔW_A − ΔW_B‖, the angle between them and their effective ranks; the module that
    differs most, relative to its size, comes first.

    No d × d matrix is formed. Adapters from `open_adapter` are read a layer at a time.

    Raises:
        InputError: they were trained on different base models.
    """
    check_same_base(a.files, b.files)
    modules = []
    products = 0.0
    for name, left, right in _both(a.updates, b.updates):
        product = inner(left, right) if left and right else 0.0
        modules.append(_module(name, left, right, product, a, b))
        products += product
    norm_a = math.hypot(*(module.norm_a for module in modules))
    norm_b = math.hypot(*(module.norm_b for module in modules))
    distance = math.hypot(*(module.distance for module in modules))
    return AdapterDiff(
        a=a.files.shown,
        b=b.files.shown,
        digest_a=adapter_digest(a.files.path),
        digest_b=adapter_digest(b.files.path),
        norm_a=norm_a,
        norm_b=norm_b,
        distance=distance,
        relative=_over(distance, max(norm_a, norm_b)),
        cosine=_angle(products, norm_a * norm_b),
        modules=tuple(sorted(modules, key=lambda module: -round(module.relative, 9))),
        whole=tuple(_whole(a, b)),
    )


def _difference(
    name: str, left: LowRank | None, right: LowRank | None, a: Adapter, b: Adapter
) -> LowRank:
    """ΔW_A − ΔW_B of one module; what an adapter does not touch has ΔW = 0."""
    if left and right and (shape(left) != shape(right) or left.embedding != right.embedding):
        raise InputError(
            f"is {shape(left)} in {a.files.shown} and {shape(right)} in {b.files.shown}",
            file=b.files.weights_shown,
            field=name,
            fix="compare adapters of the same base model",
        )
    terms = [(sign, update) for sign, update in ((1.0, left), (-1.0, right)) if update]
    return combined(terms, dtype=torch.float64)


def _module(
    name: str,
    left: LowRank | None,
    right: LowRank | None,
    product: float,
    a: Adapter,
    b: Adapter,
) -> ModuleDiff:
    """One module; `product` is ⟨ΔW_A, ΔW_B⟩."""
    apart = singular_values(_difference(name, left, right, a, b))
    nothing = torch.zeros(0, dtype=torch.float64)
    of_a, of_b = (singular_values(update) if update else nothing for update in (left, right))
    norm_a, norm_b, distance = (float(values.norm()) for values in (of_a, of_b, apart))
    return ModuleDiff(
        module=name,
        rank_a=left.rank if left else 0,
        rank_b=right.rank if right else 0,
        norm_a=norm_a,
        norm_b=norm_b,
        distance=distance,
        relative=_over(distance, max(norm_a, norm_b)),
        cosine=_angle(product, norm_a * norm_b),
        effective_rank_a=effective_rank(of_a),
        effective_rank_b=effective_rank(of_b),
        effective_rank_difference=effective_rank(apart),
    )


def _angle(product: float, norms: float) -> float | None:
    """The cosine between two updates seen as vectors; None when one of them is zero."""
    return max(-1.0, min(1.0, product / norms)) if norms else None


def layer_changes(a: Adapter, b: Adapter) -> tuple[LayerChange, ...]:
    """How far ΔW moved in each layer from `a` to `b`, the layer that moved most first.

    ‖ΔW‖_F of a layer is over all its modules. No d × d matrix is formed, and adapters from
    `open_adapter` are read a module at a time.

    Raises:
        InputError: they were trained on different base models, or hold NaN or infinity.
    """
    check_same_base(a.files, b.files)
    parts: dict[str, list[tuple[float, float, float]]] = {}
    for name, left, right in _both(a.updates, b.updates):
        apart = norm(_difference(name, left, right, a, b))
        number = layer_of(name)
        layer = "outside the layers" if number is None else f"layer {number}"
        good, bad = (norm(update) if update else 0.0 for update in (left, right))
        parts.setdefault(layer, []).append((good, bad, apart))
    found = []
    for layer, modules in parts.items():
        good, bad, apart = (math.hypot(*column) for column in zip(*modules, strict=True))
        found.append(LayerChange(layer=layer, good=good, bad=bad, distance=apart))
    return tuple(sorted(found, key=lambda change: -change.distance))


def _whole(a: Adapter, b: Adapter) -> Iterator[WholeDiff]:
    for name, left, right in _both(a.replaced, b.replaced):
        if left is None or right is None or left.shape != right.shape:
            yield WholeDiff(parameter=name, distance=None, largest=None)
            continue
        apart = left.double() - right.double()
        yield WholeDiff(
            parameter=name,
            distance=float(apart.norm()),
            largest=float(apart.abs().max()) if apart.numel() else 0.0,
        )


def _both(
    a: Mapping[str, _Value], b: Mapping[str, _Value]
) -> Iterator[tuple[str, _Value | None, _Value | None]]:
    """What either has by a name, those of `a` first."""
    for name in {**dict.fromkeys(a), **dict.fromkeys(b)}:
        yield name, a.get(name), b.get(name)


def _over(distance: float, size: float) -> float:
    return distance / size if size else 0.0


def scan(path: Path | AdapterFiles, *, base: Path | str | None = None) -> ScanReport:
    """What is wrong with an adapter, or looks it, as far as its files tell.

    Fails: options or header that cannot be used, numbers that are not finite, a ΔW that is zero
    everywhere, another base model. Warns: single dead modules, modules whose ΔW has a largest
    singular value or a norm far outside those of their like, modules that are not in the base, or
    are and were not saved, and a base that it could not be held against.

    Args:
        path: the adapter's directory, or what `read_adapter_dir` said of it.
        base: the base model it must fit, a directory or a Hub name.

    Raises:
        InputError: there is no such directory, or it holds no adapter.
    """
    shown = path.shown if isinstance(path, AdapterFiles) else str(path)
    if isinstance(path, Path):
        refuse_no_adapter(path)
    try:
        files = path if isinstance(path, AdapterFiles) else read_adapter_dir(path)
    except InputError as error:
        return ScanReport(adapter=shown, findings=(_failed("unreadable", shown, error),))
    findings: list[ScanFinding] = []
    compared = True
    if base is not None:
        try:
            compared = check_base(files, base)
        except InputError as error:
            findings.append(_failed("other base model", files.shown, error))
    findings.extend(_not_finite(files))
    sizes: dict[str, tuple[float, float]] = {}
    if isinstance(files.config, LoraConfig) and not files.left_to_peft and not findings:
        sizes = _sizes(open_adapter(files))
        findings.extend(_dead(sizes, files))
        findings.extend(_outliers(sizes))
    if base is not None and compared and Path(base).is_dir():
        findings.extend(_beside(files, base))
    if not compared:
        findings.append(
            _warn(
                "base not checked",
                files.config_shown,
                f"nothing of it could be compared with {base}",
                "give --base the base model's folder",
            )
        )
    return ScanReport(
        adapter=shown,
        digest=adapter_digest(files.path),
        peft_type=files.config.peft_type,
        base_model=files.config.base_model_name_or_path or "",
        modules=len(files.modules),
        parameters=files.header.parameters,
        norm=math.hypot(*(size for _, size in sizes.values())) if sizes else None,
        findings=tuple(findings),
    )


def _beside(files: AdapterFiles, base: Path | str) -> Iterator[ScanFinding]:
    """What a local base has and the adapter lacks, and the other way round."""
    shapes = base_shapes(Path(base))
    if unknown := strangers(files, shapes):
        more = f", nor of where {len(unknown) - 1} more are" if len(unknown) > 1 else ""
        message = f"{base} holds nothing of where this module is{more}"
        fix = "use it with the base model that it was trained on"
        yield _warn("not in the base", unknown[0], message, fix)
    if lacking := unsaved(files, shapes):
        more = f", nor for {len(lacking) - 1} more that it names" if len(lacking) > 1 else ""
        message = f"target_modules names this module, and there are no weights for it{more}"
        fix = "push adapter_config.json and the weights of the same training run"
        yield _warn("not saved", lacking[0], message, fix)


def _failed(kind: str, where: str, error: InputError) -> ScanFinding:
    place = ": ".join(filter(None, (error.file, error.field))) or where
    return _fail(kind, place, error.message, error.fix or "")


def _fail(kind: str, where: str, message: str, fix: str) -> ScanFinding:
    return ScanFinding(severity=Severity.FAIL, kind=kind, where=where, message=message, fix=fix)


def _warn(kind: str, where: str, message: str, fix: str = "") -> ScanFinding:
    return ScanFinding(severity=Severity.WARN, kind=kind, where=where, message=message, fix=fix)


def _not_finite(files: AdapterFiles) -> Iterator[ScanFinding]:
    try:
        with safe_open(files.weights_path, framework="pt", device="cpu") as stream:
            for name in files.header.tensors:
                tensor = stream.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
                    yield _fail(
                        "not finite",
                        name,
                        f"{nan} NaN and {infinite} infinite of {tensor.numel()} numbers",
                        "this checkpoint diverged in training: choose an earlier one",
                    )
    except SafetensorError as error:
        fix = "push the whole file again"
        yield _fail("unreadable", files.weights_shown, str(error)[:500], fix)


def _sizes(adapter: Adapter) -> dict[str, tuple[float, float]]:
    """Module → (largest singular value, Frobenius norm) of its ΔW."""
    found = {}
    for module in adapter.updates:
        values = singular_values(adapter.updates[module])
        found[module] = (float(values[0]) if len(values) else 0.0, float(values.norm()))
    return found


def _dead(sizes: Mapping[str, tuple[float, float]], files: AdapterFiles) -> Iterator[ScanFinding]:
    dead = [module for module, (_, size) in sizes.items() if not size]
    if sizes and len(dead) == len(sizes) and not files.replaced:
        message = "ΔW is zero in every module: the adapter changes nothing"
        yield _fail("dead", files.shown, message, "train it, and save it afterwards")
        return
    message = "ΔW is zero: this module was never trained, or its gradient vanished"
    yield from (_warn("dead module", module, message) for module in dead)


def _outliers(sizes: Mapping[str, tuple[float, float]]) -> Iterator[ScanFinding]:
    """Modules far from their like: the same projection of other layers, where there are enough."""
    families: dict[str, list[str]] = {}
    for module, (_, size) in sizes.items():
        if size:
            families.setdefault(module.rpartition(".")[2], []).append(module)
    rest = [module for members in families.values() for module in members]
    for members in families.values():
        like = members if len(members) >= _FEWEST else rest
        if len(like) < _FEWEST:
            continue
        for index, what in enumerate(("largest singular value", "norm")):
            logs = {module: math.log(sizes[module][index]) for module in like}
            middle = median(logs.values())
            spread = _MAD_TO_SD * median(abs(value - middle) for value in logs.values())
            for module in members:
                away = logs[module] - middle
                if abs(away) > max(_DEVIATIONS * spread, math.log(_FACTOR)):
                    yield _warn(
                        "spectral outlier",
                        module,
                        f"ΔW's {what} is {math.exp(away):.3g} times the median of"
                        f" {len(like)} modules like it",
                    )
