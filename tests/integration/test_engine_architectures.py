"""What a base's architecture forbids is found out, and asked in a way that is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from adapterbot.errors import InputError
from adapterbot.eval.base_model import load_base
from adapterbot.eval.forward import Forward
from adapterbot.eval.settings import EngineSettings
from adapterbot.weights import adapter_digest, read_adapter_dir
from tests import tiny_suite
from tests.integration.test_engine_answers import ask, assert_as_naive, assert_as_peft, respondent
from tests.tiny_models import (
    LONGROPE,
    VOCABULARY,
    save_adapter,
    save_base,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TASKS = (tiny_suite.generate(6), tiny_suite.choices(4), tiny_suite.likelihoods(4))
MIXED = ["linear_attention", "full_attention"]
LINEAR = {
    "head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": MIXED,
}

STATES: Mapping[str, dict[str, Any]] = {"qwen3_5_text": LINEAR, "mamba": {}}

# Each for a trap of its own, and the modules that are adapted.
ARCHITECTURES: Mapping[str, tuple[str | list[str], dict[str, Any]]] = {
    "rwkv": (["key", "value"], {}),  # a state that no mask keeps padding out of
    "lfm2": ("all-linear", {"layer_types": ["conv", "full_attention"]}),  # convolutions' states
    "minimax": (["q_proj"], {"layer_types": MIXED, "num_local_experts": 4}),  # a cache of its own
    "qwen3_5_text": ("all-linear", LINEAR),
    "gemma3n_text": (  # layers that share keys, embeddings in every layer
        "all-linear",
        {
            "num_hidden_layers": 4,
            "head_dim": 8,
            "intermediate_size": [64] * 4,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 2,
            "laurel_rank": 4,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "deepseek_v3": (  # keys and values of different widths, experts as one tensor
        "all-linear",
        {
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "gpt_oss": (["q_proj", "o_proj"], {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4}),
    "phi3": (["qkv_proj", "gate_up_proj"], {}),
    "mpt": (["Wqkv"], {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_answers_as_peft_on_more_architectures(name: str, tmp_path: Path) -> None:
    modules, options = ARCHITECTURES[name]
    base = save_base(name, tmp_path / "base", **options)
    one, model = respondent(base)
    answers = ask(one, TASKS)
    assert_as_naive(answers, model, base, TASKS)
    drafted = ask(one, TASKS, answers)
    assert {k: a.token_ids for k, a in drafted.items()} == {
        k: a.token_ids for k, a in answers.items()
    }
    assert_as_peft(base, save_adapter(base, tmp_path / "a", r=4, target_modules=modules))


@pytest.mark.parametrize("name", ["qwen3_5_text", "mamba"])
def test_a_model_with_states_is_decoded_from_them(name: str, tmp_path: Path) -> None:
    """Each token of an answer is read once, also behind padding and where rows have ended."""
    one, model = respondent(save_base(name, tmp_path / "base", **STATES[name]), 1500)
    task = tiny_suite.generate(12, max_new_tokens=40)
    read: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: read.append(args[0].numel())
    )
    answers = ask(one, [task])
    assert_as_naive(answers, model, tmp_path / "base", [task])
    assert max(read[1:40]) <= len(task.samples)


def test_a_text_has_the_frequencies_of_its_own_length(tmp_path: Path) -> None:
    """LongRoPE: a long text in the batch, or a long draft, must not change a short one's."""
    options = {"original_max_position_embeddings": 30, "rope_parameters": LONGROPE}
    base = save_base("phi3", tmp_path / "base", **options)
    tasks = [
        tiny_suite.generate(12, max_new_tokens=12),
        tiny_suite.choices(8),
        tiny_suite.likelihoods(8),
    ]
    one, model = respondent(base, 1500)
    answers = ask(one, tasks)
    assert_as_naive(answers, model, base, tasks)
    assert {k: a.token_ids for k, a in ask(one, tasks, answers).items()} == {
        k: a.token_ids for k, a in answers.items()
    }
    lengths = {len(one.tokens(s.prompt)) for s in tasks[0].samples}
    assert min(lengths) + 12 < 30 < max(lengths), "some short, some long, and some that cross"


def old_experts(directory: Path, modules: Mapping[str, tuple[int, int]]) -> Path:
    """An adapter of rank 4 as it was saved when every expert was a module."""
    source = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in range(2):
        for module, (fan_in, fan_out) in modules.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, fan_in, generator=source) * 0.2
            tensors[f"{name}.lora_B.weight"] = torch.randn(fan_out, 4, generator=source) * 0.2
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


WIDTHS = {"w1": (32, 64), "w2": (64, 32), "w3": (32, 64)}
OLD_MIXTRAL = {
    "self_attn.q_proj": (32, 32),
    **{
        f"block_sparse_moe.experts.{expert}.{name}": width
        for expert in range(4)
        for name, width in WIDTHS.items()
    },
}


def test_an_adapter_of_experts_that_were_modules_is_translated_by_peft(tmp_path: Path) -> None:
    base = save_base("mixtral", tmp_path / "base", num_local_experts=4)
    assert_as_peft(base, old_experts(tmp_path / "a", OLD_MIXTRAL))


def test_weights_that_peft_would_drop_are_refused(tmp_path: Path) -> None:
    base = save_base("mixtral", tmp_path / "base", num_local_experts=4)
    directory = old_experts(tmp_path / "a", {**OLD_MIXTRAL, "mlp.q_proj": (32, 32)})
    model, _ = respondent(base)
    with (
        pytest.raises(InputError, match=r"holds .*mlp.q_proj.*, which PEFT would drop"),
        model.under(read_adapter_dir(directory), adapter_digest(directory)),
    ):
        pass
    untouched = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert all(
        torch.equal(value, untouched[name]) for name, value in model.base.model.state_dict().items()
    )


def test_a_padding_token_that_the_model_has_not_is_not_read(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base")
    want = ask(respondent(base)[0], TASKS)
    file = base / "tokenizer.json"
    content = json.loads(file.read_text())
    added = {**content["added_tokens"][-1], "id": VOCABULARY, "content": "[PAD]"}
    content["added_tokens"].append(added)
    file.write_text(json.dumps(content))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "[PAD]"}))
    one, _ = respondent(base)
    assert one.base.tokenizer.pad_token_id == VOCABULARY, "behind the last row of the embedding"
    assert ask(one, TASKS) == want


def test_a_stop_string_that_is_a_special_token_ends_an_answer(tmp_path: Path) -> None:
    """`<|im_end|>` behind a base whose end-of-text is another: the text never shows it."""
    base = save_base("llama", tmp_path / "base")
    free = ask(respondent(base)[0], [tiny_suite.generate(12)])
    token = next(a.token_ids[2] for a in free.values() if a.token_ids[2] < 256)
    content = json.loads((base / "tokenizer.json").read_text())
    name = next(text for text, id_ in content["model"]["vocab"].items() if id_ == token)
    content["model"]["vocab"]["<|im_end|>"] = content["model"]["vocab"].pop(name)
    special = {**content["added_tokens"][-1], "id": token, "content": "<|im_end|>"}
    content["added_tokens"].append(special)
    (base / "tokenizer.json").write_text(json.dumps(content))
    stop = ("<|im_end|>",)
    one, _ = respondent(base)
    answers = ask(one, [tiny_suite.generate(12, stop=stop)])
    cut = 0
    for key, answer in ask(one, [tiny_suite.generate(12)]).items():
        whole = answer.token_ids
        want = whole[: whole.index(token)] if token in whole else whole
        assert answers[key].token_ids == want
        cut += want != whole
    assert cut > 0
    assert ask(one, [tiny_suite.generate(12, stop=stop)], answers) == answers


def test_states_that_come_out_in_float32_go_on_in_bfloat16(tmp_path: Path) -> None:
    """Or every token would have all before it read anew."""
    base = save_base("mamba", tmp_path / "base")
    model = load_base(base, EngineSettings(device="cpu", dtype="bfloat16")).model
    assert Forward(model).carries
