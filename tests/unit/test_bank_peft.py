"""Banks against PEFT itself, one user at a time: outputs, generation, import and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterbot.bank import shared
from adapterbot.bank.attached import attach_bank
from adapterbot.bank.base import modules_of
from adapterbot.bank.codec import Codec
from adapterbot.bank.peft_write import lora_updates, write_lora, write_peft
from adapterbot.errors import InputError
from tests.bank_worlds import QV, bank_of, checkpoint, load, save_user
from tests.tiny_models import PAD, save_base

VERA = {"r": 12, "task_type": "CAUSAL_LM"}
VBLORA = {
    "r": 2,
    "num_vectors": 24,
    "vector_length": 8,
    "topk": 2,
    "task_type": "CAUSAL_LM",
    "init_vector_bank_bound": 0.02,
}
KINDS: dict[str, tuple[str, Any]] = {
    "vera q/v": ("llama", lambda: peft.VeraConfig(target_modules=QV, **VERA)),
    "vera all-linear": ("llama", lambda: peft.VeraConfig(target_modules="all-linear", **VERA)),
    "vera seeded": (
        "llama",
        lambda: peft.VeraConfig(
            target_modules=QV, save_projection=False, projection_prng_key=7, **VERA
        ),
    ),
    "vera conv1d": ("gpt2", lambda: peft.VeraConfig(target_modules=["c_attn", "c_fc"], **VERA)),
    "vblora": ("llama", lambda: peft.VBLoRAConfig(target_modules=QV, **VBLORA)),
    "vblora top-k": (
        "llama",
        lambda: peft.VBLoRAConfig(
            target_modules=[*QV, "down_proj"], save_only_topk_weights=True, **VBLORA
        ),
    ),
}
PROMPTS = torch.tensor([[PAD, PAD, 5, 6, 7], [9, 8, 7, 6, 5], [1, 2, 3, 4, 5], [PAD, 40, 3, 2, 1]])
ROWS = ["b", None, "a", "c"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: save_base(kind, root / kind) for kind in ("llama", "gpt2")}


@pytest.fixture(scope="module", params=list(KINDS))
def world(
    request: pytest.FixtureRequest,
    bases: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Path], Path]:
    """A base, three users' PEFT directories, and the bank of them."""
    kind, config = KINDS[request.param]
    root = tmp_path_factory.mktemp("bank")
    adapters = {
        user: save_user(bases[kind], root / user, config(), seed)
        for seed, user in enumerate("abc", 1)
    }
    bank_of(bases[kind], root / "bank", adapters).close()
    return bases[kind], adapters, root / "bank"


def by_peft(base: Path, adapter: Path | None) -> Any:
    model = load(base)
    return peft.PeftModel.from_pretrained(model, adapter).eval() if adapter else model


def generated(model: Any, row: torch.Tensor, **options: Any) -> Any:
    return model.generate(
        input_ids=row,
        attention_mask=(row != PAD).long(),
        max_new_tokens=5,
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


def test_every_row_of_a_mixed_batch_gets_its_user_in_prefill_and_decode(
    world: tuple[Path, dict[str, Path], Path],
) -> None:
    base, adapters, path = world
    with torch.no_grad():
        with attach_bank(load(base), path) as attached:
            model = attached._model
            together = generated(model, PROMPTS, tenants=ROWS)
        for index, user in enumerate(ROWS):
            alone = by_peft(base, adapters[user] if user else None)
            wanted = generated(alone, PROMPTS[index : index + 1])
            assert together.sequences[index].tolist() == wanted.sequences[0].tolist()
            # The first logits are the prefill's, the others are decoded with the cache.
            for ours, theirs in zip(together.logits, wanted.logits, strict=True):
                scale = theirs.abs().max()
                torch.testing.assert_close(
                    ours[index] / scale, theirs[0] / scale, atol=1e-5, rtol=0
                )


def test_users_of_these_banks_answer_differently(world: tuple[Path, dict[str, Path], Path]) -> None:
    """So that the test above can fail."""
    base, _, path = world
    model = load(base)
    row = PROMPTS[1:2].expand(4, -1)
    with torch.no_grad(), attach_bank(model, path) as attached:
        with attached.tenants(["a", "b", "c", None]):
            logits = model(row).logits[:, -1]
        for one in range(4):
            for other in range(one):
                assert (logits[one] - logits[other]).abs().max() > 1e-2 * logits.abs().max()


@pytest.mark.parametrize("kind", ["peft", "lora"])
def test_an_exported_user_answers_the_same_under_peft(
    world: tuple[Path, dict[str, Path], Path], tmp_path: Path, kind: str
) -> None:
    base, adapters, path = world
    with attach_bank(load(base), path) as attached:
        source = attached._source
        write = write_peft if kind == "peft" else write_lora
        manifest = source.manifest.model_copy(update={"base_model": "org/base@v1"})
        write(manifest, source.shared(), source.gather(["b"]), tmp_path)
    with torch.no_grad():
        ours = by_peft(base, tmp_path)(PROMPTS[1:2]).logits
        theirs = by_peft(base, adapters["b"])(PROMPTS[1:2]).logits
    torch.testing.assert_close(
        ours / theirs.abs().max(), theirs / theirs.abs().max(), atol=1e-5, rtol=0
    )
    named = peft.PeftConfig.from_pretrained(tmp_path)
    assert (named.base_model_name_or_path, named.revision) == ("org/base", "v1")
    original = json.loads((adapters["b"] / "adapter_config.json").read_text())["peft_type"]
    assert named.peft_type == (original if kind == "peft" else "LORA")


def test_an_exported_user_comes_back_as_the_same_row(
    world: tuple[Path, dict[str, Path], Path], tmp_path: Path
) -> None:
    base, _, path = world
    with attach_bank(load(base), path) as attached:
        source = attached._source
        row = source.gather(["c"])
        manifest = source.manifest.model_copy(update={"base_model": "org/base@v1"})
        write_peft(manifest, source.shared(), row, tmp_path)
    again = checkpoint(base, tmp_path)
    assert again.base_model == "org/base@v1"
    assert again.layout == source.manifest.layout
    assert shared.digest(again.shared) == source.manifest.shared.digest
    assert (again.row.choices == row.choices).all()
    assert abs(again.row.values - row.values).max() < 1e-6


def test_attack_a_base_that_an_adapter_names_runs_no_kernel_of_the_hub(tmp_path: Path) -> None:
    config = {"model_type": "llama", "attn_implementation": "evil/kernel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="makes transformers load other code"):
        modules_of(tmp_path, "all-linear")
    with pytest.raises(InputError, match="is not a directory"):
        modules_of(tmp_path / "config.json", "all-linear")


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16", "int8"])
def test_weights_that_were_rounded_still_leave_peft_a_last_one(
    bases: dict[str, Path], dtype: Any, top_k: int, tmp_path: Path
) -> None:
    """Rounded up, all but the last can be more than 1 together; PEFT takes the log of the rest."""
    options = {**VBLORA, "topk": top_k}
    config = peft.VBLoRAConfig(target_modules=QV, init_logits_std=4.0, **options)
    bank_of(
        bases["llama"], tmp_path / "b", {"u": save_user(bases["llama"], tmp_path / "u", config, 1)}
    ).close()
    with attach_bank(load(bases["llama"]), tmp_path / "b") as attached:
        source = attached._source
        manifest = source.manifest.model_copy(update={"dtype": dtype})
        codec = Codec(manifest)
        row = codec.decode(codec.encode(source.gather(["u"])))
        write_peft(manifest, source.shared(), row, tmp_path / "out")
        want = lora_updates(manifest, source.shared(), row)
    model = by_peft(bases["llama"], tmp_path / "out")
    for name, update in want.items():
        got = model.base_model.model.get_submodule(name).get_delta_weight("default").squeeze(0)
        served = update.b @ update.a
        assert (got - served).norm() <= 0.02 * served.norm()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bias": "vera_only"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 13}, "rank|vectors of 13"),
        ({"r": "x"}, "r"),
        ({"peft_type": "IA3"}, "peft_type"),
    ],
)
def test_what_a_bank_cannot_hold_is_refused_by_name(
    bases: dict[str, Path], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    config = peft.VeraConfig(target_modules=QV, **VERA)
    adapter = save_user(bases["llama"], tmp_path / "a", config, 1)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=named):
        checkpoint(bases["llama"], adapter)


def test_attack_a_rank_of_millions_does_not_ask_for_all_the_memory(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """One vector per module of that length is a file of a few megabytes; A and B are far more."""
    rank, seeded = 2**23, {"save_projection": False}
    config = peft.VeraConfig(target_modules=["v_proj"], **VERA, **seeded)
    adapter = save_user(bases["llama"], tmp_path / "a", config, 1)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": rank}))
    weights = adapter / "adapter_model.safetensors"
    longer = {
        name: torch.ones(rank, dtype=torch.float16) if "lambda_d" in name else tensor
        for name, tensor in load_file(weights).items()
    }
    save_file(longer, weights)
    with pytest.raises(InputError, match=r"shares [0-9,]+ numbers, more than 268,435,456"):
        checkpoint(bases["llama"], adapter)


def test_a_bank_does_not_go_under_another_model(
    world: tuple[Path, dict[str, Path], Path], tmp_path: Path
) -> None:
    other = load(save_base("llama", tmp_path / "other", intermediate_size=96, hidden_size=48))
    with pytest.raises(InputError, match=r"features|module"):
        attach_bank(other, world[2])
    assert not any(module._forward_hooks for module in other.modules())
