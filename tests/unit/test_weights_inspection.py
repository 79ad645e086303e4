"""Adapters looked at without running them, from the command line too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapterbot.commands import inspect as command
from adapterbot.errors import InputError
from adapterbot.records.inspection import Severity
from adapterbot.weights import load_adapter
from adapterbot.weights.inspection import compare, scan
from tests import command_line
from tests.tiny_models import save_adapter, save_base

EIGHT_LAYERS = {"num_hidden_layers": 8}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("llama", tmp_path_factory.mktemp("base"), **EIGHT_LAYERS)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return save_adapter(base, tmp_path / "a", r=4, target_modules=["q_proj", "down_proj"])


def edited(directory: Path, edit: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy with every tensor passed through `edit`."""
    copy = directory.with_name("edited")
    copy.mkdir()
    (copy / "adapter_config.json").write_bytes((directory / "adapter_config.json").read_bytes())
    tensors = load_file(directory / "adapter_model.safetensors")
    save_file(
        {name: edit(name, tensor) for name, tensor in tensors.items()},
        copy / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    return copy


def test_flipped_signs_are_no_difference(adapter: Path) -> None:
    twin = edited(adapter, lambda _, tensor: -tensor)
    found = compare(load_adapter(adapter), load_adapter(twin))
    assert found.distance == 0.0
    assert found.cosine == pytest.approx(1.0)
    assert all(module.distance == 0.0 for module in found.modules)
    assert found.digest_a != found.digest_b


def test_distances_are_those_of_dense_matrices(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = save_adapter(base, tmp_path / "b", seed=2, r=2, target_modules=["q_proj", "v_proj"])
    a, b = load_adapter(adapter), load_adapter(other)
    found = compare(a, b)
    every: list[tuple[torch.Tensor, torch.Tensor]] = []
    for module in found.modules:
        given = [
            adapter.delta_weight(module.module).double().flatten()
            if module.module in adapter.updates
            else None
            for adapter in (a, b)
        ]
        some = next(weights for weights in given if weights is not None)
        x, y = (torch.zeros_like(some) if weights is None else weights for weights in given)
        every.append((x, y))
        ranks = [
            one.updates[module.module].rank if w is not None else 0
            for one, w in zip((a, b), given, strict=True)
        ]
        assert [module.rank_a, module.rank_b] == ranks
        assert module.distance == pytest.approx(float((x - y).norm()), rel=1e-5)
        if x.any() and y.any():
            cosine = float(x @ y / x.norm() / y.norm())
            assert module.cosine == pytest.approx(cosine, abs=1e-5)
    # The whole adapter is one long vector.
    x, y = (torch.cat(side) for side in zip(*every, strict=True))
    assert found.distance == pytest.approx(float((x - y).norm()), rel=1e-5)
    assert found.cosine == pytest.approx(float(x @ y / x.norm() / y.norm()), rel=1e-4, abs=1e-7)
    larger = max(float(x.norm()), float(y.norm()))
    assert found.relative == pytest.approx(found.distance / larger, rel=1e-5)
    alone = next(m for m in found.modules if "v_proj" in m.module)
    assert (alone.rank_a, alone.norm_a, alone.cosine) == (0, 0.0, None)
    assert alone.relative == pytest.approx(1.0)
    # What only one adapter has comes first, at relative distance 1.
    relative = [module.relative for module in found.modules]
    assert relative == pytest.approx(sorted(relative, reverse=True))


def test_a_sound_adapter_has_no_findings(adapter: Path, base: Path) -> None:
    found = scan(adapter, base=base)
    assert found.findings == ()
    assert found.modules == 16
    assert found.norm


def test_rescaled_factors_are_no_outlier(adapter: Path) -> None:
    """Only ΔW counts: A a thousand times as large and B a thousandth is the same adapter."""
    rescaled = edited(
        adapter,
        lambda name, t: t * (1000 if "lora_A" in name else 1 / 1000) if "layers.3" in name else t,
    )
    assert scan(rescaled).findings == ()


def test_a_module_far_from_its_like_is_named(adapter: Path) -> None:
    loud = edited(
        adapter,
        lambda name, t: t * 50 if "layers.3.self_attn.q_proj.lora_B" in name else t,
    )
    found = scan(loud)
    assert {f.where for f in found.findings} == {"model.layers.3.self_attn.q_proj"}
    assert all(f.severity is Severity.WARN for f in found.findings)
    assert "times the median of 8 modules like it" in found.findings[0].message
    assert not found.fails


def test_dead_modules(adapter: Path) -> None:
    one = edited(adapter, lambda n, t: t * 0 if "layers.3.mlp.down_proj.lora_B" in n else t)
    (finding,) = scan(one).findings
    assert (finding.severity, finding.where) == (Severity.WARN, "model.layers.3.mlp.down_proj")


def test_an_adapter_that_does_nothing_fails(adapter: Path) -> None:
    found = scan(edited(adapter, lambda n, t: t * 0 if "lora_B" in n else t))
    assert found.fails
    assert "the adapter changes nothing" in found.findings[0].message


@pytest.mark.parametrize(("value", "words"), [("nan", "1 NaN"), ("-inf", "1 infinite")])
def test_numbers_that_are_none(adapter: Path, value: str, words: str) -> None:
    def edit(name: str, tensor: Tensor) -> Tensor:
        if "layers.0.self_attn.q_proj.lora_A" in name:
            tensor[0, 0] = float(value)
        return tensor

    found = scan(edited(adapter, edit))
    assert found.fails
    assert words in found.findings[0].message
    assert found.norm is None, "nothing was computed of it"


def test_another_base_fails(adapter: Path, tmp_path: Path) -> None:
    wide = save_base("llama", tmp_path / "wide", hidden_size=64, **EIGHT_LAYERS)
    found = scan(adapter, base=wide)
    assert found.fails
    assert found.findings[0].kind == "other base model"


def test_layers_that_the_base_does_not_have_are_named(adapter: Path, tmp_path: Path) -> None:
    short = save_base("llama", tmp_path / "short", num_hidden_layers=6)
    found = scan(adapter, base=short)
    (finding,) = found.findings
    assert (finding.kind, finding.severity) == ("not in the base", Severity.WARN)
    assert finding.where.startswith("model.layers.6.")
    assert "nor of where 3 more are" in finding.message


def test_a_base_may_call_its_layers_by_another_class(tmp_path: Path) -> None:
    """As the files of Qwen3.5 do, and as GPT-2's have no `transformer.` before theirs."""
    base = save_base("llama", tmp_path / "base")
    options = {"r": 2, "target_modules": ["q_proj", "lm_head"]}
    adapter = save_adapter(base, tmp_path / "a", **options)
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    other = {k.replace("model.", "model.language_model."): v for k, v in weights.items()}
    save_file(other, base / "model.safetensors")
    assert not scan(adapter, base=base).findings


def test_layers_that_were_not_saved_are_named(adapter: Path, base: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    kept = {name: t for name, t in load_file(weights).items() if "layers.0." not in name}
    save_file(kept, weights, metadata={"format": "pt"})
    (finding,) = scan(adapter, base=base).findings
    assert (finding.kind, finding.severity) == ("not saved", Severity.WARN)
    assert finding.where.startswith("model.layers.0.")
    assert "nor for 1 more" in finding.message
    tensors = load_file(base / "model.safetensors")
    (tmp_path / "experts").mkdir()
    expert = tensors["model.layers.1.mlp.down_proj.weight"].clone()
    tensors = {k: v for k, v in tensors.items() if "layers.0." not in k}
    tensors["model.layers.1.mlp.experts.0.down_proj.weight"] = expert
    save_file(tensors, tmp_path / "experts" / "model.safetensors")
    assert not scan(adapter, base=tmp_path / "experts").findings, "of experts nothing is known"


def test_kinds_that_are_left_to_peft_are_read_too(base: Path, tmp_path: Path) -> None:
    dora = save_adapter(base, tmp_path / "dora", r=2, target_modules=["q_proj"], use_dora=True)
    assert scan(dora).findings == ()
    with pytest.raises(InputError, match="nowhere: does not exist"):
        scan(tmp_path / "nowhere")


def test_diff_and_scan_print_json_and_exit_by_what_they_find(adapter: Path) -> None:
    twin = edited(adapter, lambda _, tensor: -tensor)
    done = command_line.run("diff", adapter, twin, "--json")
    assert (done.returncode, json.loads(done.stdout)["distance"]) == (0, 0.0)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(b"PK\x03\x04" + weights.read_bytes())
    done = command_line.run("scan", adapter, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["findings"][0]["kind"] == "unreadable"


def test_a_folder_that_is_no_adapter_is_bad_input_and_no_finding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no adapter: it holds no adapter_config\.json"):
        command.scan(tmp_path, None)


def test_a_base_that_is_not_there_is_not_passed_over(adapter: Path, tmp_path: Path) -> None:
    """`sound` would have been said of an adapter that was held against nothing."""
    with pytest.raises(InputError, match="missing: --base: does not exist"):
        command.scan(adapter, str(tmp_path / "missing"))
    # A mistyped folder may be a name on the Hub, and one that holds no model has no shapes.
    for base in ("bse", str(tmp_path)):
        found = command.scan(adapter, base)
        assert [finding.kind for finding in found.findings] == ["base not checked"]
        assert not found.fails
