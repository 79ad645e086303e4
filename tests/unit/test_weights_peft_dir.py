"""An adapter directory is sound, or the error names file, field and fix."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterbot.errors import InputError
from adapterbot.weights import adapter_digest, check_base, read_adapter_dir
from tests.programs import python

Q = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
}


def pair(module: str = Q, *, rank: int = 2, width: int = 8) -> dict[str, Any]:
    return {
        f"{module}.lora_A.weight": np.ones((rank, width), np.float32),
        f"{module}.lora_B.weight": np.ones((width, rank), np.float32),
    }


def write(directory: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(pair() if tensors is None else tensors, directory / "adapter_model.safetensors")
    return directory


def test_a_sound_directory(tmp_path: Path) -> None:
    files = read_adapter_dir(
        write(tmp_path / "a", {**pair(), "base_model.model.lm_head.weight": np.ones((3, 8))})
    )
    entry = files.modules["model.layers.0.self_attn.q_proj"]
    assert (entry.rank, entry.in_features, entry.out_features) == (2, 8, 8)
    assert files.replaced == {"lm_head.weight": "base_model.model.lm_head.weight"}
    assert files.left_to_peft == ()
    with pytest.raises(AttributeError):
        files.shown = "other"  # type: ignore[misc]


def test_an_embedding_and_a_saved_base_layer(tmp_path: Path) -> None:
    embed = "base_model.model.model.embed_tokens"
    files = read_adapter_dir(
        write(
            tmp_path / "a",
            {
                f"{embed}.lora_embedding_A": np.ones((2, 50), np.float32),
                f"{embed}.lora_embedding_B": np.ones((8, 2), np.float32),
                f"{embed}.base_layer.weight": np.ones((50, 8), np.float32),
            },
            target_modules=["embed_tokens"],
        )
    )
    assert files.modules["model.embed_tokens"].embedding
    assert list(files.replaced) == ["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "holds no tensor"),
        ({"x": np.ones(1)}, "x: does not start with 'base_model.model.'"),
        ({f"{Q}.lora_A.weight": np.ones((2, 8))}, "only A of its two factors"),
        (pair(rank=3), "the options say rank 2"),
        (
            {**pair(), f"{Q}.lora_magnitude_vector": np.ones(8)},
            "no option of adapter_config.json announces",
        ),
        ({k: v.astype(np.int8) for k, v in pair().items()}, "a factor is a float matrix"),
        ({f"{Q}.bias": np.ones(8), **pair()}, "which looks for model.layers.0.self_attn.q_proj.b"),
        ({f"{Q}.base_layer.bias": np.ones(8)}, "would be dropped by PEFT"),
        ({**pair(), f"{Q}.lora_embedding_A": np.ones((2, 8))}, "is a second A beside"),
        ({**pair(), "base_model.model.lm_head.weight": np.ones(8, np.uint16)}, "does not save"),
        ({k: v[0] for k, v in pair().items()}, "a factor is a float matrix"),
    ],
)
def test_weights_that_the_options_do_not_announce(
    tensors: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        read_adapter_dir(write(tmp_path / "a", tensors), shown="adapters/a")
    assert says in str(caught.value)
    assert caught.value.file == "adapters/a/adapter_model.safetensors"
    assert caught.value.fix


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "a")
    (directory / "adapter_model.safetensors").unlink()
    (directory / "adapter_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match=r"adapter_model.bin: is a pickle.*safe_serialization"):
        read_adapter_dir(directory)
    with pytest.raises(InputError, match="is a pickle"):
        adapter_digest(directory)


def test_what_a_directory_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_adapter_dir(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no adapter_config.json"):
        read_adapter_dir(tmp_path)
    directory = write(tmp_path / "a")
    with pytest.raises(InputError, match="is not a directory"):
        read_adapter_dir(directory / "adapter_config.json")
    (directory / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no adapter_model.safetensors"):
        read_adapter_dir(directory)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_are_refused(name: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "a")
    (directory / name).rename(tmp_path / name)
    (directory / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="is a symbolic link"):
        read_adapter_dir(directory)
    with pytest.raises(InputError, match="is a symbolic link"):
        adapter_digest(directory)


def test_the_digest_is_of_options_and_weights_alone(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    digest = adapter_digest(first)
    assert adapter_digest(write(tmp_path / "b")) == digest
    (first / "README.md").write_text("anything")
    assert adapter_digest(first) == digest
    assert adapter_digest(write(tmp_path / "b", lora_alpha=5)) != digest
    changed = {k: v + 1 for k, v in pair().items()}
    assert adapter_digest(write(tmp_path / "b", changed)) != digest
    assert len(digest) == 64


def test_another_base_by_name(tmp_path: Path) -> None:
    files = read_adapter_dir(write(tmp_path / "a"))
    check_base(files, "org/base")
    check_base(files, "Org/Base")
    with pytest.raises(InputError, match=r"base_model_name_or_path: is 'org/base'.*'org/other'"):
        check_base(files, "org/other")
    check_base(read_adapter_dir(write(tmp_path / "b", base_model_name_or_path="/x/y")), "org/base")
    check_base(read_adapter_dir(write(tmp_path / "c", base_model_name_or_path=None)), "org/base")


@pytest.mark.parametrize("base", ["org/base", "."])
def test_attack_a_base_that_anybody_may_have_proposed_on_the_hub_is_refused(
    tmp_path: Path, base: str
) -> None:
    """`AutoPeftModel` loads the base at the revision that the options name."""
    given = {"base_model_name_or_path": "org/base", "revision": "refs/pr/7"}
    with pytest.raises(InputError, match="anybody may have proposed") as caught:
        check_base(read_adapter_dir(write(tmp_path / "a", **given)), base)
    assert caught.value.field == "revision"
    pinned = write(tmp_path / "b", **{**given, "revision": "a" * 40})
    check_base(read_adapter_dir(pinned), base)


def test_another_base_by_shape(tmp_path: Path) -> None:
    files = read_adapter_dir(write(tmp_path / "a"))
    base = tmp_path / "base"
    base.mkdir()
    weight = "model.layers.0.self_attn.q_proj.weight"
    save_file({weight: np.ones((8, 8), np.float32)}, base / "model.safetensors")
    check_base(files, base)
    save_file({weight: np.ones((16, 16), np.float32)}, base / "model.safetensors")
    with pytest.raises(InputError) as caught:
        check_base(files, base)
    assert caught.value.field == "model.layers.0.self_attn.q_proj"
    save_file({"other": np.ones(1, np.float32)}, base / "model.safetensors")
    check_base(files, base)


def test_no_torch_for_reading(tmp_path: Path) -> None:
    directory = write(tmp_path / "a")
    code = (
        "import sys; from adapterbot.weights import read_adapter_dir, adapter_digest;"
        "import adapterbot.weights.header;"
        f"read_adapter_dir({str(directory)!r}); adapter_digest({str(directory)!r});"
        "print(sorted({'torch','numpy','peft','transformers','safetensors'} & set(sys.modules)))"
    )
    done = python("-c", code, check=True)
    assert done.stdout.strip() == "[]"
