"""Models that also look at pictures are asked without, and adapters name the modules of the class
that they were trained on: under an engine, in a bank, in a mixture, and in front of a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from adapterbot.bank.attached import attach_bank
from adapterbot.conversations import Example
from adapterbot.errors import InputError
from adapterbot.eval.base_model import load_base
from adapterbot.eval.settings import EngineSettings
from adapterbot.mole.mixture import Mixture
from adapterbot.weights import attach, load_adapter, merge_linear
from adapterbot.weights.inspection import scan
from adapterbot.weights.mixture_config import GateConfig
from adapterbot.weights.peft_dir import read_adapter_dir
from adapterbot.weights.row_gradients import mean_gradient
from adapterbot.weights.via_peft import attached_by_peft
from tests.bank_worlds import bank_of
from tests.integration.test_engine_answers import assert_as_peft
from tests.integration.test_engine_architectures import LINEAR
from tests.tiny_models import BOS, EOS, VOCABULARY, save_adapter, save_base, save_peft, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

PICTURES = transformers.AutoModelForImageTextToText
SETTINGS = EngineSettings(dtype="float32", device="cpu")
IDS = torch.tensor([[3, 4, 5, 6]])


def save_pictured(family: str, base: Path) -> None:
    """A model that also looks at pictures."""
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    special = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS}
    text = {**size, **special, "num_key_value_heads": 2, "max_position_embeddings": 256}
    options: dict[str, dict[str, Any]]
    if family == "mistral3":
        vision = {"model_type": "pixtral", "num_hidden_layers": 1, "head_dim": 8, **size}
        two = {"model_type": "mistral", "num_hidden_layers": 2}
        options = {"text_config": {**text, **two}, "vision_config": vision}
    elif family == "qwen3_5":
        vision = {"depth": 1, "num_heads": 4, "out_hidden_size": 32, **size}
        options = {
            "text_config": {**text, **LINEAR, "num_hidden_layers": 2},
            "vision_config": {**vision, "patch_size": 4},
        }
    elif family == "gemma3":
        vision = {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14, **size}
        local = {"num_hidden_layers": 2, "head_dim": 8, "sliding_window": 8, "pad_token_id": 0}
        options = {"text_config": {**text, **local}, "vision_config": vision}
    elif family == "mllama":
        depth = {"num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 4}
        tiles = {"image_size": 28, "max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]}
        out = {"vision_output_dim": 64, "intermediate_layers_indices": [0]}
        layers = {"num_hidden_layers": 2, "cross_attention_layers": [1], "pad_token_id": 0}
        options = {
            "text_config": {**text, **layers},
            "vision_config": {"hidden_size": 32, "intermediate_size": 64, **depth, **tiles, **out},
        }
    else:
        vision = {"num_hidden_layers": 1, "image_size": 28, "vision_output_dim": 32, **size}
        experts = {"num_local_experts": 2, "intermediate_size_mlp": 64, "head_dim": 8}
        options = {
            "text_config": {**text, **experts, "num_hidden_layers": 2, "pad_token_id": 0},
            "vision_config": {**vision, "projector_input_dim": 32, "projector_output_dim": 32},
        }
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[family](**options)
    PICTURES.from_config(config).save_pretrained(base)
    tokenizer(bos=True).save_pretrained(base)


def trained(base: Path, directory: Path, config: Any) -> Path:
    """An adapter of the class that also looks at pictures."""
    model = peft.get_peft_model(PICTURES.from_pretrained(base), config)
    return save_peft(model, directory, scale=0.6)


PICTURED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "no class for text": ("mistral3", {"target_modules": ["q_proj", "down_proj"]}),
    "qwen3.5": ("qwen3_5", {"target_modules": ["q_proj", "in_proj_qkv", "linear_fc1"]}),
    "all linear": ("qwen3_5", {"target_modules": "all-linear"}),
    "a pattern": ("qwen3_5", {"target_modules": r".*language_model.*\.(q_proj|down_proj)"}),
    "head": ("qwen3_5", {"target_modules": ["lm_head", "v_proj"]}),
    "whole": (
        "qwen3_5",
        {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "linear_fc2"]},
    ),
    "by peft": ("qwen3_5", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "head by peft": ("qwen3_5", {"target_modules": ["lm_head", "v_proj"], "use_dora": True}),
    "llama 4": ("llama4", {"target_modules": ["q_proj", "o_proj"]}),  # both have such
    "llama 3.2": ("mllama", {"target_modules": ["q_proj", "lm_head"]}),
    "llama 3.2 by peft": ("mllama", {"target_modules": ["q_proj", "lm_head"], "use_dora": True}),
    "llama 4 by peft": ("llama4", {"target_modules": ["q_proj", "lm_head"], "use_dora": True}),
}


@pytest.mark.parametrize("case", PICTURED)
def test_a_model_that_also_looks_at_pictures_is_asked_without(case: str, tmp_path: Path) -> None:
    """Adapters name the modules of the class that they were trained on, pictures included."""
    family, options = PICTURED[case]
    base = tmp_path / "base"
    save_pictured(family, base)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, **options)
    assert_as_peft(base, trained(base, tmp_path / "a", config), PICTURES)


def test_matrices_that_modules_share_stay_where_text_needs_them(tmp_path: Path) -> None:
    """VeRA's, whose modules look at pictures, too."""
    save_pictured("llama4", tmp_path / "base")
    config = peft.VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj"])
    place = trained(tmp_path / "base", tmp_path / "a", config)
    model = load_base(tmp_path / "base", SETTINGS).model
    bare = logits(model)
    with attached_by_peft(model, read_adapter_dir(place)):
        got = logits(model)
    want = as_peft_says(tmp_path / "base", place)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model), bare)


TEXT: Mapping[str, tuple[Any, str | list[str]]] = {
    # Of these, transformers gives whoever asks for a language model the class with pictures.
    "gemma3": (transformers.Gemma3ForCausalLM, "all-linear"),
    "mistral3": (transformers.MistralForCausalLM, ["q_proj", "lm_head"]),
}


def test_an_adapter_of_the_class_for_text_alone(tmp_path: Path) -> None:
    save_pictured("qwen3_5", tmp_path / "base")
    adapter = save_adapter(tmp_path / "base", tmp_path / "a", r=4, target_modules=["q_proj"])
    assert_as_peft(tmp_path / "base", adapter)


@pytest.mark.parametrize("family", TEXT)
def test_an_adapter_of_the_half_that_reads_text(family: str, tmp_path: Path) -> None:
    kind, targets = TEXT[family]
    save_pictured(family, tmp_path / "base")
    whole = PICTURES.from_pretrained(tmp_path / "base")
    half = kind(whole.config.text_config)
    half.model, half.lm_head = whole.model.language_model, whole.lm_head
    half.save_pretrained(tmp_path / "half")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets)
    adapter = save_peft(peft.get_peft_model(half, config), tmp_path / "a", scale=0.6)
    loaded = load_base(tmp_path / "base", SETTINGS).model
    with attach(loaded, {"it": load_adapter(adapter)}) as attached, attached.selected("it"):
        got = logits(loaded)
    half = kind.from_pretrained(tmp_path / "half")
    want = logits(peft.PeftModel.from_pretrained(half, adapter).eval())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert not torch.equal(got, logits(loaded))


def test_a_router_that_gives_more_than_a_tensor_is_named(tmp_path: Path) -> None:
    """PEFT ends in a traceback there, training or not; so did we."""
    save_pictured("llama4", tmp_path / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    adapter = load_adapter(trained(tmp_path / "base", tmp_path / "a", config))
    model = load_base(tmp_path / "base", SETTINGS).model
    with (
        attach(model, {"it": adapter}) as attached,
        attached.selected("it"),
        pytest.raises(InputError, match=r"feed_forward\.router: is a Llama4Router in the base"),
    ):
        logits(model)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("qwen") / "base"
    save_pictured("qwen3_5", place)
    return place


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS).logits


def as_peft_says(base: Path, adapter: Path) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(PICTURES.from_pretrained(base), adapter).eval())


def test_one_model_takes_adapters_of_both_classes_at_once(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    pictured = trained(base, tmp_path / "pictured", config)
    text = save_adapter(base, tmp_path / "text", r=4, target_modules=["q_proj"])
    model = load_base(base, SETTINGS).model
    bare = logits(model)
    adapters = {place.name: load_adapter(place) for place in (pictured, text)}
    with attach(model, adapters) as attached:
        for one in (pictured, text, pictured):
            with attached.selected(one.name):
                got = logits(model)
            torch.testing.assert_close(got, reference(base, one), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            attached.select_rows(["text", None, "pictured"])
            rows = model(input_ids=IDS.expand(3, -1)).logits
    for row, one in ((rows[:1], text), (rows[2:], pictured)):
        torch.testing.assert_close(row, reference(base, one), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[1:2], bare, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model), bare)


def test_a_scan_holds_adapters_of_both_classes_against_the_base(base: Path, tmp_path: Path) -> None:
    """Its files name the modules of the class that also looks at pictures."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    pictured = trained(base, tmp_path / "pictured", config)
    text = save_adapter(base, tmp_path / "text", r=4, target_modules=["q_proj", "down_proj"])
    for one in (pictured, text):
        assert not scan(one, base=base).findings
    save_base("llama", tmp_path / "other", hidden_size=48)
    assert [f.kind for f in scan(pictured, base=tmp_path / "other").findings] == [
        "base not checked"
    ]


def test_what_no_class_could_load_is_not_merged(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    pictured = load_adapter(trained(base, tmp_path / "pictured", config))
    text = load_adapter(save_adapter(base, tmp_path / "text", r=4, target_modules=["q_proj"]))
    with pytest.raises(InputError, match=r"holds modules of model\.layers, where .*language_model"):
        merge_linear([pictured, text], [0.5, 0.5])
    assert merge_linear([text, text], [0.5, 0.5]).updates.keys() == text.updates.keys()


def reference(base: Path, adapter: Path) -> torch.Tensor:
    loader = PICTURES if adapter.name == "pictured" else transformers.AutoModelForCausalLM
    return logits(peft.PeftModel.from_pretrained(loader.from_pretrained(base), adapter).eval())


def test_a_bank_of_users_who_were_trained_with_pictures(base: Path, tmp_path: Path) -> None:
    config = peft.VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "down_proj"])
    user = trained(base, tmp_path / "user", config)
    bank_of(base, tmp_path / "bank", {"ann": user}).close()
    model = load_base(base, SETTINGS).model
    with attach_bank(model, tmp_path / "bank") as bank, bank.tenants(["ann"]):
        torch.testing.assert_close(logits(model), as_peft_says(base, user), rtol=1e-4, atol=1e-5)


def test_a_bank_over_a_family_without_a_class_for_text(tmp_path: Path) -> None:
    save_pictured("mistral3", tmp_path / "base")
    config = peft.VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"])
    user = trained(tmp_path / "base", tmp_path / "user", config)
    bank_of(tmp_path / "base", tmp_path / "bank", {"ann": user}).close()
    model = load_base(tmp_path / "base", SETTINGS).model
    with attach_bank(model, tmp_path / "bank") as bank, bank.tenants(["ann"]):
        want = as_peft_says(tmp_path / "base", user)
        torch.testing.assert_close(logits(model), want, rtol=1e-4, atol=1e-5)


def test_a_mixture_of_experts_that_were_trained_with_pictures(base: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"])
    places = [trained(base, tmp_path / f"e{index}", config) for index in range(2)]
    experts = {place.name: load_adapter(place) for place in places}
    model = load_base(base, SETTINGS).model
    with Mixture(model, experts, GateConfig(num_task_adapters=2)) as mixture:
        for index, place in enumerate(places):
            with mixture.alone(index):
                got = logits(model)
            torch.testing.assert_close(got, as_peft_says(base, place), rtol=1e-4, atol=1e-5)


def test_gradients_reach_an_adapter_that_was_trained_with_pictures(
    base: Path, tmp_path: Path
) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "linear_fc1"])
    place = trained(base, tmp_path / "a", config)
    adapter, model = load_adapter(place), load_base(base, SETTINGS).model
    with attach(model, {"it": adapter}) as attached, attached.selected("it"):
        found = mean_gradient(model, adapter, [Example((3, 4), (5, 6))], pad=0, tokens=64)
    under = peft.PeftModel.from_pretrained(PICTURES.from_pretrained(base), place, is_trainable=True)
    labels = IDS.masked_fill(torch.tensor([True, True, False, False]), -100)
    under.eval()(input_ids=IDS, labels=labels).loss.backward()
    for name, parameter in under.named_parameters():
        if ".lora_" in name:
            module = name.removeprefix("base_model.model.").partition(".lora_")[0]
            got = found[module]["lora_B" in name]
            want = parameter.grad if parameter.grad is not None else torch.zeros_like(got)
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


def test_an_adapter_of_another_base_is_refused_by_the_name_that_it_has(
    base: Path, tmp_path: Path
) -> None:
    save_pictured("mistral3", tmp_path / "other")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["k_proj"])
    place = trained(tmp_path / "other", tmp_path / "a", config)
    with pytest.raises(InputError, match=r"model\.language_model\.layers\.0\.self_attn\.k_proj"):
        attach(load_base(base, SETTINGS).model, {"it": load_adapter(place)})
