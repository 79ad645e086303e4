"""Attacks by a VeRA or VB-LoRA checkpoint that is imported: each ends in one line, none in a
traceback, and none in a bank that holds something else than was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapterbot.errors import InputError
from tests.bank_worlds import checkpoint
from tests.tiny_models import save_base

Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.vblora_logits_A", f"{Q}.vblora_logits_B"
VECTORS = "base_model.vblora_vector_bank"
VERA: dict[str, Any] = {
    "peft_type": "VERA",
    "r": 4,
    "target_modules": ["q_proj"],
    "save_projection": False,
}
VBLORA: dict[str, Any] = {
    "peft_type": "VBLORA",
    "r": 2,
    "target_modules": ["q_proj"],
    "num_vectors": 8,
    "vector_length": 8,
    "topk": 2,
}
SMALL = {f"{Q}.vera_lambda_d": torch.ones(4), f"{Q}.vera_lambda_b": torch.ones(32)}
RANDOM = torch.Generator().manual_seed(0)
WHOLE = {
    name: torch.rand(shape, generator=RANDOM)
    for name, shape in ((A, (2, 4, 8)), (B, (4, 2, 8)), (VECTORS, (8, 8)))
}
TOP = {
    f"{A}_topk_indices": torch.ones(2, 4, 2, dtype=torch.long),
    f"{A}_topk_weights": torch.full((2, 4, 1), 0.7),
    f"{B}_topk_indices": torch.ones(4, 2, 2, dtype=torch.long),
    f"{B}_topk_weights": torch.full((4, 2, 1), 0.7),
    VECTORS: WHOLE[VECTORS],
}
NAN = float("nan")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base("llama", tmp_path_factory.mktemp("base"))


def read(base: Path, folder: Path, options: dict[str, Any], tensors: dict[str, Any]) -> Any:
    folder.mkdir()
    text = json.dumps({"base_model_name_or_path": str(base), **options})
    (folder / "adapter_config.json").write_text(text)
    save_file(tensors, folder / "adapter_model.safetensors")
    return checkpoint(base, folder)


@pytest.mark.parametrize(
    ("options", "tensors"),
    [(VERA, SMALL), (VBLORA, WHOLE), (VBLORA, TOP)],
    ids=["VeRA", "VB-LoRA", "VB-LoRA, chosen vectors only"],
)
def test_as_it_is_each_is_read(
    base: Path, tmp_path: Path, options: dict[str, Any], tensors: dict[str, Any]
) -> None:
    assert read(base, tmp_path / "a", options, tensors).layout.rank == options["r"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({**VERA, "projection_prng_key": -1}, "projection_prng_key"),
        ({**VERA, "projection_prng_key": 2**63}, "projection_prng_key"),
        ({**VERA, "projection_prng_key": 2**70}, "projection_prng_key"),
        ({**VERA, "r": -1}, "r"),
        ({**VBLORA, "topk": -1}, "topk"),
        ({**VBLORA, "topk": 0}, "topk"),
        ({**VBLORA, "vector_length": 0}, "vector_length"),
        ({**VBLORA, "vector_length": -8}, "vector_length"),
        ({**VBLORA, "num_vectors": 2**40}, "num_vectors"),
    ],
)
def test_attack_a_number_that_is_none_of_an_option_is_one_line(
    base: Path, tmp_path: Path, options: dict[str, Any], field: str
) -> None:
    """Torch and pydantic raised errors of their own, which end as a failure of ours."""
    tensors = SMALL if options["peft_type"] == "VERA" else WHOLE
    with pytest.raises(InputError) as caught:
        read(base, tmp_path / "a", options, tensors)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "changed",
    [
        {f"{A}_topk_indices": torch.zeros(1, 4, 2, dtype=torch.long)},
        {f"{A}_topk_indices": torch.zeros(2, 4, 1, dtype=torch.long)},
        {f"{A}_topk_indices": torch.zeros(2, 4, 9, dtype=torch.long)},
        {f"{A}_topk_indices": torch.zeros(3, 5, 2, dtype=torch.long)},
        {f"{A}_topk_indices": torch.full((2, 4, 2), 0.7)},
        {f"{A}_topk_weights": torch.zeros(2, 4, 5)},
    ],
    ids=["fewer rows", "fewer", "more", "more rows", "fractions", "more weights"],
)
def test_attack_choices_that_do_not_fit_their_weights_are_not_cut_to_fit(
    base: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Some crashed; others were cut to the weights' shape, or to whole numbers, and answered."""
    with pytest.raises(InputError, match="that fit its options"):
        read(base, tmp_path / "a", VBLORA, TOP | changed)


@pytest.mark.parametrize("size", [0, 1, 99])
def test_attack_logits_of_more_or_fewer_vectors_than_there_are(
    base: Path, tmp_path: Path, size: int
) -> None:
    with pytest.raises(InputError, match="that fit its options"):
        read(base, tmp_path / "a", VBLORA, WHOLE | {A: torch.rand(2, 4, size)})


def test_attack_a_factor_without_tiles_is_one_line(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="inputs"):
        read(base, tmp_path / "a", VBLORA, WHOLE | {A: torch.rand(2, 0, 8)})


def test_attack_a_tensor_of_the_other_kind_is_not_passed_over(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a tensor that a bank does not hold"):
        read(base, tmp_path / "a", VERA, SMALL | {A: torch.rand(2, 4, 8)})


@pytest.mark.parametrize(
    ("options", "tensors"),
    [
        (
            {**VERA, "save_projection": True},
            SMALL
            | {"base_model.vera_A": torch.full((4, 32), NAN)}
            | {"base_model.vera_B": torch.ones(32, 4)},
        ),
        (VBLORA, WHOLE | {VECTORS: torch.full((8, 8), NAN)}),
        (VBLORA, WHOLE | {VECTORS: torch.full((8, 8), 1e300, dtype=torch.float64)}),
    ],
    ids=["projection", "vectors", "beyond fp32"],
)
def test_attack_one_users_nan_is_not_what_all_users_share(
    base: Path, tmp_path: Path, options: dict[str, Any], tensors: dict[str, Any]
) -> None:
    """The first adapter of a bank brings what all users share: none of them had an answer."""
    with pytest.raises(InputError, match="holds NaN or infinity"):
        read(base, tmp_path / "a", options, tensors)
