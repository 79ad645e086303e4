"""A mixture on a model against the model with every token's own weights merged, token by token;
against itself with and without cache, padding and batches; and its directory."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from adapterbot.errors import InputError, OurFailure
from adapterbot.mole import load_mixture
from adapterbot.mole import mixture as mixture_module
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.mole.kernels import Way
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.saving import save_mixture
from adapterbot.weights import Adapter, load_adapter
from adapterbot.weights.mixture_config import GateConfig
from tests.tiny_models import save_adapter, save_base

TARGETS: list[dict[str, Any]] = [
    {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "o_proj"]},
    {"r": 8, "use_rslora": True, "target_modules": ["v_proj", "up_proj"]},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixture")
    save_base("llama", root / "base")
    for seed, options in enumerate(TARGETS):
        save_adapter(root / "base", root / f"expert{seed}", seed=seed, **options)
    return root


@pytest.fixture
def model(place: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(place / "base").eval()


@pytest.fixture
def mixture(place: Path, model: Any) -> Iterator[Mixture]:
    experts = {f"expert{i}": load_adapter(place / f"expert{i}") for i in range(3)}
    with Mixture(model, experts, GateConfig(num_task_adapters=3, top_k=2), seed=7) as made:
        with torch.no_grad():
            made.gate.weight.mul_(20)
        yield made


def logits(model: Any, ids: Tensor, **arguments: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False, **arguments).logits


def test_layers_go_by_their_numbers_in_the_base(place: Path, model: Any) -> None:
    save_adapter(
        place / "base", place / "late", r=2, target_modules=["q_proj"], layers_to_transform=[1]
    )
    late = load_adapter(place / "late")
    with Mixture(model, {"a": late, "b": late}, GateConfig(num_task_adapters=2)) as made:
        assert made.numbers == (1,)


class MergedLayer:
    """A decoder layer in which every token has its own weights, W + Σ p_k ΔW_k, merged in turn.

    Keys and values of a token are made by its own weights, so they are made first and kept; then
    the layer runs once per token, and only that token's row of its output counts.
    """

    def __init__(self, layer: Any, index: int, mixture: Mixture, experts: list[Adapter]) -> None:
        self.layer, self.index, self.gate = layer, index, mixture.gate
        self.run, self.experts = layer.forward, experts
        self.plain = {name: m.weight.detach().clone() for name, m in self.linears()}

    def linears(self) -> list[tuple[str, Any]]:
        return [(n, m) for n, m in self.layer.named_modules() if hasattr(m, "in_features")]

    def merge(self, weights: Tensor) -> None:
        for name, module in self.linears():
            full = f"model.layers.{self.index}.{name}"
            merged = self.plain[name].clone()
            for weight, expert in zip(weights, self.experts, strict=True):
                if full in expert.updates:
                    merged += weight * expert.delta_weight(full).double()
            module.weight.data = merged

    def __call__(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        chosen = self.gate.routing(self.gate.probabilities(self.index, hidden[0].float()))
        weights = chosen.dense(len(self.experts)).double()
        attention, normed = self.layer.self_attn, self.layer.input_layernorm(hidden)
        keys, values, rows = [], [], []
        for token, own in enumerate(weights):
            self.merge(own)
            keys.append(attention.k_proj(normed)[:, token])
            values.append(attention.v_proj(normed)[:, token])
        kept = {"k_proj": torch.stack(keys, 1), "v_proj": torch.stack(values, 1)}
        hooks = [
            getattr(attention, name).register_forward_hook(lambda *_, value=value: value)
            for name, value in kept.items()
        ]
        for token, own in enumerate(weights):
            self.merge(own)
            rows.append(self.run(hidden, *args, **kwargs)[:, token])
        for hook in hooks:
            hook.remove()
        return torch.stack(rows, 1)


def merged_token_by_token(place: Path, mixture: Mixture, ids: Tensor) -> Tensor:
    base = transformers.AutoModelForCausalLM.from_pretrained(place / "base").double().eval()
    experts = [load_adapter(place / f"expert{i}") for i in range(3)]
    for index, layer in enumerate(base.model.layers):
        layer.forward = MergedLayer(layer, index, mixture, experts)
    return logits(base, ids)


def test_a_mixture_is_every_tokens_own_merged_weights(
    place: Path, model: Any, mixture: Mixture
) -> None:
    ids = torch.tensor([[5, 9, 17, 4, 30, 12]])
    want = merged_token_by_token(place, mixture, ids)
    for way in (None, *Way):
        mixture.way = way
        got = logits(model, ids)
        assert (got.double() - want).norm() <= 1e-5 * want.norm()


def test_detached_the_base_is_itself(place: Path, model: Any) -> None:
    ids = torch.tensor([[5, 9, 17, 4]])
    before = logits(model, ids)
    experts = {f"e{i}": load_adapter(place / f"expert{i}") for i in range(3)}
    mixture = Mixture(model, experts, GateConfig(num_task_adapters=3))
    assert not torch.equal(logits(model, ids), before)
    mixture.detach()
    mixture.detach()
    assert torch.equal(logits(model, ids), before)


def test_cache_padding_and_batches_change_nothing(model: Any, mixture: Mixture) -> None:
    prompts = [[5, 9, 17], [4, 30, 12, 8, 21, 6, 11]]
    alone = [
        model.generate(torch.tensor([p]), max_new_tokens=8, do_sample=False, use_cache=False)[0]
        for p in prompts
    ]
    cached = [
        model.generate(torch.tensor([p]), max_new_tokens=8, do_sample=False)[0] for p in prompts
    ]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    together = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    for one, with_cache, row, prompt in zip(alone, cached, together, prompts, strict=True):
        answer = one[len(prompt) :].tolist()
        assert with_cache[len(prompt) :].tolist() == answer
        assert row[longest:].tolist()[: len(answer)] == answer


def test_gradient_checkpointing_gives_the_same_gradients(model: Any, mixture: Mixture) -> None:
    ids = torch.tensor([[5, 9, 17, 4, 30]])
    found = []
    for checkpointed in (False, True):
        model.train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        mixture.gate.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        assert mixture.gate.weight.grad is not None
        found.append(mixture.gate.weight.grad.clone())
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


def test_route_says_what_each_token_used(model: Any, mixture: Mixture) -> None:
    shares = mixture.route(torch.tensor([[5, 9, 17, 4], [3, 3, 8, 1]]))
    assert shares.shape == (2, 2, 4, 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 4))
    assert ((shares > 0).sum(-1) == 2).all()


def test_a_saved_mixture_is_the_same_mixture(
    place: Path, model: Any, mixture: Mixture, tmp_path: Path
) -> None:
    ids = torch.tensor([[5, 9, 17, 4, 30, 12]])
    want = logits(model, ids)
    experts = {f"expert{i}": place / f"expert{i}" for i in range(3)}
    save_mixture(tmp_path / "made", mixture, experts, base_model=str(place / "base"))
    mixture.detach()
    with load_mixture(model, tmp_path / "made") as loaded:
        assert torch.equal(logits(model, ids), want)
        assert loaded.names == mixture.names
    alone = read_mixture_dir(tmp_path / "made").export(tmp_path / "alone")
    shutil.move(alone, tmp_path / "elsewhere")
    with load_mixture(model, tmp_path / "elsewhere"):
        assert torch.equal(logits(model, ids), want)


@pytest.fixture
def saved(place: Path, mixture: Mixture, tmp_path: Path) -> Path:
    experts = {f"expert{i}": place / f"expert{i}" for i in range(3)}
    save_mixture(tmp_path / "made", mixture, experts, base_model=str(place / "base"))
    mixture.detach()
    return read_mixture_dir(tmp_path / "made").export(tmp_path / "alone")


def test_a_full_disk_leaves_nothing_of_a_copy(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OurFailure, match="more: could not be written: No space left"):
        read_mixture_dir(saved).export(tmp_path / "more")
    assert set(tmp_path.iterdir()) == before


def test_a_mixture_that_is_loaded_twice_is_live_once(model: Any, saved: Path) -> None:
    """A cell of a notebook that was run twice put the updates on twice."""
    ids = torch.tensor([[5, 9, 17, 4]])
    earlier = load_mixture(model, saved)
    once = logits(model, ids)
    with load_mixture(model, saved):
        assert torch.equal(logits(model, ids), once)
        with pytest.raises(InputError, match=r"not live for every row \(select\(None\)"):
            earlier.route(ids)
    earlier.select(None)
    assert torch.equal(logits(model, ids), once)
    earlier.detach()
    assert not [name for name in vars(model) if "mixture" in name]


def test_rows_are_those_of_the_batch(model: Any, mixture: Mixture) -> None:
    """Where a batch had more rows than were named, as with beams, the base answered the rest."""
    ids = torch.tensor([[5, 9, 17, 4]])
    mixture.select([True, False])
    assert not torch.equal(*logits(model, ids.expand(2, -1)))
    for rows in (1, 3):
        with pytest.raises(InputError, match=f"batch: has {rows} rows, but 2 were named"):
            logits(model, ids.expand(rows, -1))
    with pytest.raises(InputError, match="batch: has 4 rows"):
        model.generate(ids.expand(2, -1), num_beams=2, max_new_tokens=2, pad_token_id=0)
    mixture.select(())
    logits(model, ids.expand(3, -1))


def test_a_mixture_that_is_cut_short_leaves_nothing_behind(
    model: Any, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it was live, and nobody held it."""
    ids = torch.tensor([[5, 9, 17, 4]])
    base, stacked, made = logits(model, ids), mixture_module._stacked, []

    def cut(*arguments: Any) -> Any:
        made.append(stacked(*arguments))
        if len(made) == 3:
            raise KeyboardInterrupt
        return made[-1]

    monkeypatch.setattr(mixture_module, "_stacked", cut)
    with pytest.raises(KeyboardInterrupt):
        load_mixture(model, saved)
    assert torch.equal(logits(model, ids), base)
    assert not [name for name in vars(model) if "mixture" in name]


@pytest.mark.parametrize("expert", [3, -1, "expert0"])
def test_an_expert_that_there_is_not_is_refused(mixture: Mixture, expert: Any) -> None:
    with pytest.raises(IndexError, match="of 3"), mixture.alone(expert):
        pass


def test_another_expert_in_the_same_place_is_refused(place: Path, saved: Path) -> None:
    """Attack: weights under a trusted gate exchanged for others of the same shape."""
    source = saved / "experts" / "00" / "adapter_model.safetensors"
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    source.write_bytes(content)
    with pytest.raises(InputError, match="not the adapter that the gate was trained with"):
        read_mixture_dir(saved)


@pytest.mark.parametrize("path", ["/etc", "link"])
def test_experts_from_outside_are_refused(saved: Path, path: str) -> None:
    """Attack: a manifest that reads from the runner's disk, by absolute path or symbolic link."""
    (saved / "link").symlink_to(saved / "experts" / "00")
    content = json.loads((saved / "mole_config.json").read_text())
    content["experts"][0]["path"] = path
    (saved / "mole_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not a directory beside the mixture"):
        read_mixture_dir(saved)


def test_broken_manifests_name_the_field(saved: Path) -> None:
    path = saved / "mole_config.json"
    good = json.loads(path.read_text())
    for change, message in (
        ({"gate": {**good["gate"], "top_k": 9}}, "top_k 9 exceeds"),
        ({"experts": good["experts"][:1]}, "experts"),
        ({"surprise": 1}, "surprise"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=message):
            read_mixture_dir(saved)


def test_a_soup_manifest_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "mole_manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"mole_manifest\.json.*blends the logits"):
        read_mixture_dir(tmp_path)


def test_experts_that_cannot_be_routed_are_refused(place: Path, model: Any) -> None:
    good = load_adapter(place / "expert0")
    save_adapter(place / "base", place / "head", r=2, target_modules=["lm_head"])
    save_adapter(
        place / "base", place / "bias", r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    for name, message in (("head", "outside the decoder layers"), ("bias", "replaces whole")):
        with pytest.raises(InputError, match=message):
            Mixture(
                model,
                {"good": good, name: load_adapter(place / name)},
                GateConfig(num_task_adapters=2),
            )


def test_layers_of_two_stacks_are_refused(place: Path, model: Any) -> None:
    """As `all-linear` takes in a vision tower: its layers have the numbers of the text's."""
    model.model.tower = torch.nn.Module()
    model.model.tower.layers = copy.deepcopy(model.model.layers)
    experts = {}
    for name in ("expert0", "expert1"):
        one = load_adapter(place / name)
        there = {k.replace("model.layers", "model.tower.layers"): u for k, u in one.updates.items()}
        experts[name] = replace(one, updates={**one.updates, **there})
    with pytest.raises(InputError, match=r"model\.layers\.0 and model\.tower\.layers\.0"):
        Mixture(model, experts, GateConfig(num_task_adapters=2))


def test_another_width_is_refused(place: Path, model: Any) -> None:
    experts = {f"e{i}": load_adapter(place / f"expert{i}") for i in range(2)}
    with pytest.raises(InputError, match=r"hidden_dim.*4096, but the base model is 32"):
        Mixture(model, experts, GateConfig(num_task_adapters=2, hidden_dim=4096))
