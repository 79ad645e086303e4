"""ΔW algebra, held against dense fp64 matrices and PEFT's own `get_delta_weight`."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from adapterbot.errors import InputError
from adapterbot.weights import (
    attach,
    load_adapter,
    merge_linear,
    open_adapter,
    read_adapter_dir,
    save_adapter,
)
from adapterbot.weights.adapter import LowRank
from adapterbot.weights.lowrank import (
    combined,
    effective_rank,
    inner,
    norm,
    recompressed,
    singular_values,
)
from tests import tiny_models
from tests.adapter_kinds import KINDS, QV, save_bases

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

OTHER: Mapping[str, dict[str, Any]] = {
    # A second adapter on the same base, of another rank, scale and set of modules.
    "llama": {"r": 6, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
    "tied": {"r": 6, "lora_alpha": 5, "target_modules": ["q_proj", "down_proj"]},
    "gemma2": {"r": 6, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]},
    "gpt2": {"r": 6, "lora_alpha": 5, "target_modules": ["c_attn", "c_fc"]},
}


def distance(one: LowRank, other: LowRank) -> float:
    return norm(combined([(1.0, one), (-1.0, other)], dtype=torch.float64))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def effective(base: Path, adapter: Path | None) -> dict[str, Tensor]:
    """Every parameter of the base under an adapter, as PEFT has it: W + ΔW in fp64."""
    model = AutoModelForCausalLM.from_pretrained(base).double()
    if adapter is None:
        return dict(model.state_dict())
    wrapped = peft.PeftModel.from_pretrained(model, adapter).double()
    deltas = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in wrapped.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    # Tied weights hold two deltas; taken apart, each is compared on its own.
    found = {f"delta {name}": delta for name, delta in deltas.items()}
    for name, tensor in wrapped.state_dict().items():
        if ".lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if ".modules_to_save." in plain:
            plain = plain.replace(".modules_to_save.default.", ".")
        elif ".original_module." in plain:
            continue
        found[plain] = tensor
    return found


def expected(base: Path, parts: Sequence[Path], weights: Sequence[float]) -> dict[str, Tensor]:
    """P₀ + Σ wᵢ (Pᵢ − P₀) of everything, where an absent ΔW is zero."""
    bare = effective(base, None)
    under = [effective(base, part) for part in parts]
    names = {name for values in under for name in values}
    total = {}
    for name in names:
        start = bare.get(name)
        terms = [
            w * (v[name] - start if start is not None else v[name])
            for w, v in zip(weights, under, strict=True)
            if name in v
        ]
        total[name] = sum(terms) if start is None else start + sum(terms)
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_merge_is_the_sum_of_deltas_in_peft(
    kind: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    name, options = KINDS[kind]
    base = bases[name]
    other = OTHER[name]
    if kind in ("conv1d", "conv1d all"):
        other = {**other, "fan_in_fan_out": True}
    parts = [
        tiny_models.save_adapter(base, tmp_path / "a", seed=1, **{"r": 4, **options}),
        tiny_models.save_adapter(base, tmp_path / "b", seed=2, **{"r": 3, **options}),
        tiny_models.save_adapter(base, tmp_path / "c", seed=3, **other),
    ]
    weights = [0.7, -0.4, 1.3]
    if "tied" in kind and "modules_to_save" in kind:
        parts, weights = parts[:2], [0.4, 0.6]

    merged = merge_linear([open_adapter(part) for part in parts], weights, base=base)
    save_adapter(merged, tmp_path / "merged")

    got = effective(base, tmp_path / "merged")
    want = expected(base, parts, weights)
    assert set(want) <= set(got)
    for parameter, value in want.items():
        scale = float(value.norm()) or 1.0
        assert float((got[parameter] - value).norm()) / scale <= 1e-6, parameter
    # What PEFT loads, this house loads too, and it fits the base.
    model = AutoModelForCausalLM.from_pretrained(base)
    with attach(model, {"merged": load_adapter(tmp_path / "merged")}) as attachment:
        attachment.select("merged")
        ours = model(torch.tensor([[5, 6, 7]])).logits
    theirs = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "merged"
    )
    torch.testing.assert_close(ours, theirs(torch.tensor([[5, 6, 7]])).logits)


def test_both_files_keep_their_new_names_through_a_power_cut(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was synced between the two: the new options could be left with the old weights."""
    place = tmp_path / "merged"
    first, second = (
        load_adapter(tiny_models.save_adapter(bases["llama"], tmp_path / str(seed), seed=seed, r=4))
        for seed in (1, 2)
    )
    save_adapter(first, place)
    kept, fsync = [], os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            kept.append({path.name: path.read_bytes() for path in place.iterdir()})

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", noted)
        save_adapter(second, place)
    assert kept[-1] == {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_inputs_type_is_kept(
    dtype: torch.dtype, bases: dict[str, Path], tmp_path: Path
) -> None:
    parts = [
        stored_as(dtype, tiny_models.save_adapter(bases["llama"], tmp_path / str(seed), seed=seed,
                                                  r=4, target_modules=QV))
        for seed in (1, 2)
    ]  # fmt: skip
    adapters = [load_adapter(part) for part in parts]
    save_adapter(merge_linear(adapters, [0.3, 0.9]), tmp_path / "merged")
    merged = load_adapter(tmp_path / "merged")
    eps = torch.finfo(dtype).eps
    for module, update in merged.updates.items():
        assert update.a.dtype == update.b.dtype == dtype
        want = sum(w * dense(a.updates[module]) for w, a in zip((0.3, 0.9), adapters, strict=True))
        assert float((dense(update) - want).norm() / want.norm()) <= eps
    mixed = merge_linear([adapters[0], load_adapter(tmp_path / "2")], [1.0, 1.0])
    assert next(iter(mixed.updates.values())).a.dtype == dtype


@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0, 1e4])
@pytest.mark.parametrize("weight", [1e-3, -0.1, 40.0])
def test_a_small_or_large_weight_costs_fp16_no_digits(size: float, weight: float) -> None:
    """Folded into B alone it would leave the range of fp16."""
    one = random_update(seed=1)
    half = replace(one, a=(0.05 * one.a).half(), b=(size * one.b).half())
    both = combined([(weight, half), (weight / 3, half)])
    assert both.dtype == torch.float16
    want = 4 / 3 * weight * dense(half)
    assert float((dense(both) - want).norm() / want.norm()) < torch.finfo(torch.float16).eps
    nothing = combined([(0.0, half), (1.0, replace(half, b=torch.zeros_like(half.b)))])
    assert not dense(nothing).any()
    assert nothing.a.isfinite().all()


def test_types_that_differ_are_widened() -> None:
    half, brain = random_update(seed=1), random_update(seed=2)
    half = replace(half, a=half.a.half(), b=half.b.half())
    brain = replace(brain, a=brain.a.bfloat16(), b=brain.b.bfloat16())
    both = combined([(0.5, half), (2.0, brain)])
    assert both.dtype == torch.float32
    want = 0.5 * dense(half) + 2.0 * dense(brain)
    assert float((dense(both) - want).norm() / want.norm()) < 1e-6


# PEFT itself fails on a 1 × 1 × 1 kernel.
@pytest.mark.parametrize(("dimensions", "kernel"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 3)])
def test_convolutions(dimensions: int, kernel: int, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = getattr(nn, f"Conv{dimensions}d")(6, 10, kernel)

    parts = []
    for seed, rank in ((1, 2), (2, 4)):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=rank, target_modules=["body"])
        parts.append(
            tiny_models.save_peft(peft.get_peft_model(Net(), config), tmp_path / str(seed))
        )
    adapters = [load_adapter(part) for part in parts]
    save_adapter(merge_linear(adapters, [0.7, -1.1]), tmp_path / "merged")

    def delta(part: Path) -> Tensor:
        layer: Any = peft.PeftModel.from_pretrained(Net(), part).double().base_model.model.body
        return layer.get_delta_weight("default")

    want = 0.7 * delta(parts[0]) - 1.1 * delta(parts[1])
    torch.testing.assert_close(delta(tmp_path / "merged"), want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        load_adapter(tmp_path / "merged").delta_weight("body").double(), want, rtol=1e-5, atol=1e-6
    )


def stored_as(dtype: torch.dtype, directory: Path) -> Path:
    file = directory / "adapter_model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    return directory


def random_update(
    rank: int = 4, out: int = 20, into: int = 30, scale: float = 0.7, *, seed: int = 0
) -> LowRank:
    source = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, into, generator=source)
    b = torch.randn(out, rank, generator=source)
    return LowRank(a, b, scale)


def dense(update: LowRank) -> Tensor:
    return update.scale * (update.b.double() @ update.a.double())


@pytest.mark.parametrize("rank", [1, 3, 10, 25, 40])
def test_measures_are_those_of_the_dense_matrix(rank: int) -> None:
    one, two = random_update(rank, seed=1), random_update(3, scale=-1.5, seed=2)
    x, y = dense(one), dense(two)
    assert norm(one) == pytest.approx(float(x.norm()), rel=1e-12)
    assert inner(one, two) == pytest.approx(float((x * y).sum()), rel=1e-9)
    assert distance(one, two) == pytest.approx(float((x - y).norm()), rel=1e-12)
    values = torch.linalg.svdvals(x)
    got = singular_values(one)
    torch.testing.assert_close(got[: min(rank, 20)], values[: min(rank, 20)])
    share = values[: min(rank, 20)] / values[: min(rank, 20)].sum()
    assert effective_rank(got) == pytest.approx(float(torch.exp(-(share * share.log()).sum())))


@pytest.mark.parametrize("rank", [1, 2, 4, 7])
def test_a_truncation_is_the_best_there_is(rank: int) -> None:
    update = combined([(1.0, random_update(seed=1)), (-0.3, random_update(3, seed=2))])
    small = recompressed(update, rank)
    assert small.rank == rank
    values = torch.linalg.svdvals(dense(update))
    least = float(values[rank:].norm())
    assert float((dense(small) - dense(update)).norm()) == pytest.approx(least, abs=1e-4)


def test_an_adapter_that_weighs_nothing_leaves_no_ranks() -> None:
    one, other = (LowRank(torch.randn(r, 9), torch.randn(7, r), 0.5) for r in (2, 3))
    alone = combined([(0.0, one), (2.0, other)])
    assert alone.rank == 3
    torch.testing.assert_close(alone.b @ alone.a, other.b @ other.a)
    nothing = combined([(0.0, one), (0.0, other)])
    assert not (nothing.b @ nothing.a).any()


def test_ranks_that_add_nothing_are_dropped() -> None:
    update = random_update(4)
    wide = replace(update, a=update.a.double(), b=update.b.double())
    twice = combined([(1.0, wide), (0.5, wide)])
    assert twice.rank == 8
    assert recompressed(twice).rank == 4
    torch.testing.assert_close(dense(recompressed(twice)), 1.5 * dense(update))


def test_twins_are_at_distance_zero() -> None:
    update = random_update(4)
    flipped = replace(update, a=-update.a, b=-update.b)
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    wide = replace(update, a=update.a.double(), b=update.b.double())
    turned = replace(wide, a=turn.T @ wide.a, b=wide.b @ turn)
    for twin in (flipped, turned):
        assert distance(update, twin) == 0.0
        assert inner(update, twin) == pytest.approx(norm(update) * norm(twin))
    zero = replace(update, b=torch.zeros_like(update.b))
    assert (norm(zero), effective_rank(singular_values(zero))) == (0, 0)
    # An adapter without a rank is one that nobody can load.
    assert recompressed(zero).rank == 1
    assert distance(update, replace(update, a=update.a * (1 + 1e-6))) > 0


def test_a_rank_is_kept_to(bases: dict[str, Path], tmp_path: Path) -> None:
    parts = [
        tiny_models.save_adapter(bases["llama"], tmp_path / str(seed), seed=seed, r=4,
                                 target_modules=QV)
        for seed in (1, 2)
    ]  # fmt: skip
    adapters = [load_adapter(part) for part in parts]
    save_adapter(merge_linear(adapters, [0.5, 0.5], rank=3), tmp_path / "merged")
    merged = load_adapter(tmp_path / "merged")
    assert merged.config.r == 3
    assert not merged.config.rank_pattern
    assert {update.rank for update in merged.updates.values()} == {3}
    again = merge_linear(adapters, [0.5, 0.5], rank=8)
    for module, update in merge_linear(adapters, [0.5, 0.5]).updates.items():
        assert distance(again.updates[module], update) == 0.0


def test_an_adapter_survives_saving(bases: dict[str, Path], tmp_path: Path) -> None:
    _, options = KINDS["patterns"]
    directory = tiny_models.save_adapter(bases["llama"], tmp_path / "a", **{"r": 4, **options})
    save_adapter(open_adapter(directory), tmp_path / "b")
    first, second = load_adapter(directory), load_adapter(tmp_path / "b")
    assert first.config == second.config
    for module, update in first.updates.items():
        assert torch.equal(update.a, second.updates[module].a)
        assert torch.equal(update.b, second.updates[module].b)
        assert update.scale == second.updates[module].scale


def test_other_bases_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    one = tiny_models.save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV)
    wide = tiny_models.save_base("llama", tmp_path / "wide", hidden_size=64)
    two = tiny_models.save_adapter(wide, tmp_path / "b", r=4, target_modules=QV)
    with pytest.raises(InputError, match="32 × 32 in one adapter and 64 × 64 in another"):
        save_adapter(
            merge_linear([load_adapter(one), load_adapter(two)], [1, 1]), tmp_path / "merged"
        )
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    for directory, base in ((one, "org/one"), (two, "org/two")):
        file = directory / "adapter_config.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": base})
        )
    with pytest.raises(InputError, match=r"is 'org/two', but the base model is 'org/one'"):
        merge_linear([open_adapter(one), open_adapter(two)], [1, 1])


def test_dora_is_refused_by_name(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = tiny_models.save_adapter(
        bases["llama"], tmp_path / "a", r=4, target_modules=QV, use_dora=True
    )
    for load in (load_adapter, open_adapter):
        with pytest.raises(InputError, match="use_dora: is not plain LoRA"):
            load(directory)


def test_what_the_base_is_needed_for_is_said(bases: dict[str, Path], tmp_path: Path) -> None:
    heads = [
        tiny_models.save_adapter(bases["llama"], tmp_path / str(seed), seed=seed, r=4,
                                 target_modules=QV, modules_to_save=saved)
        for seed, saved in enumerate((["norm", "lm_head"], ["lm_head", "up_proj", "down_proj"]))
    ]  # fmt: skip
    adapters = [load_adapter(head) for head in heads]
    merged = merge_linear(adapters, [0.25, 0.75], base=bases["llama"])
    # As the next run has them, whose sets are in another order.
    assert merged.config.modules_to_save == ("down_proj", "lm_head", "norm", "up_proj")
    (tmp_path / "empty").mkdir()
    elsewhere = merge_linear(adapters, [0.5, 0.75], base=tmp_path / "empty")
    with pytest.raises(InputError, match=r"lm_head\.weight: is not among the base model's weights"):
        elsewhere.replaced["lm_head.weight"]
    with pytest.raises(InputError, match=r"lm_head\.weight: is saved whole with weights that do"):
        merge_linear(adapters, [0.5, 0.75])
    low = tiny_models.save_adapter(bases["llama"], tmp_path / "c", r=4, target_modules=["lm_head"])
    with pytest.raises(InputError, match="lm_head: has low-rank weights here, and is saved whole"):
        merge_linear([adapters[0], load_adapter(low)], [1.0, 1.0])


def test_numbers_that_do_not_fit_are_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    part = stored_as(
        torch.float16,
        tiny_models.save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV),
    )
    with pytest.raises(InputError, match="does not fit into float16"):
        save_adapter(merge_linear([load_adapter(part)], [1e20]), tmp_path / "merged")
    assert not list((tmp_path / "merged").iterdir())


def test_an_opened_adapter_reads_when_asked(bases: dict[str, Path], tmp_path: Path) -> None:
    directory = tiny_models.save_adapter(bases["llama"], tmp_path / "a", r=4, target_modules=QV)
    opened, loaded = open_adapter(directory), load_adapter(directory)
    assert set(opened.updates) == set(loaded.updates)
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    broken = next(name for name in tensors if "q_proj.lora_B" in name)
    tensors[broken][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    opened = open_adapter(read_adapter_dir(directory))
    module = broken.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
    with pytest.raises(InputError, match="holds NaN"):
        opened.updates[module]
    with pytest.raises(KeyError):
        opened.updates["elsewhere"]
