"""soup.yaml of a mixture: the seed's block, Soup's flat keys, and every way to get them wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adapterbot.errors import InputError
from adapterbot.mole.artifact import read_mixture_dir
from adapterbot.mole.config import read_config

SEED = """\
base: ./base
task: moe_lora_routing
data: {train: ./train.jsonl}
training:
  mole:
    num_task_adapters: 3
    hidden_dim: 4096
    temperature: 1.0
    top_k: 2
  mole_task_adapters: [./a, ./b, ./c]
"""


def test_a_training_mole_block_is_read() -> None:
    found = read_config(SEED.encode(), "soup.yaml")
    assert found.experts == ("./a", "./b", "./c")
    assert found.gate.model_dump() == {
        "num_task_adapters": 3,
        "hidden_dim": 4096,
        "temperature": 1.0,
        "top_k": 2,
        "router": "per-layer",
    }


def test_soups_flat_keys() -> None:
    text = """\
base: b
task: moe_lora_routing
data: {train: t.jsonl}
training: {mole_task_adapters: [a, b], mole_top_k: 1, mole_temperature: 0.5, lr: 0.01}
"""
    found = read_config(text.encode(), "soup.yaml")
    assert (found.gate.top_k, found.gate.temperature, found.gate.hidden_dim) == (1, 0.5, None)
    assert found.training.lr == 0.01


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: moe_lora_routing", "task: sft", r"task \(line 2\): is 'sft'"),
        ("task: moe", "backend: mlx\ntask: moe", r"backend \(line 2\): is mlx"),
        ("top_k: 2", "top_k: 4", r"top_k \(line 9\): is 4, but there are 3"),
        ("adapters: 3", "adapters: 1", r"num_task_adapters \(line 6\)"),
        ("adapters: 3", "adapters: 65", r"num_task_adapters \(line 6\)"),
        ("adapters: 3", "adapters: 4", r"is 4, but 3 adapters are listed"),
        ("temperature: 1.0", "temperature: 0", r"temperature \(line 8\)"),
        ("temperature: 1.0", "temperature: .nan", r"temperature \(line 8\)"),
        ("hidden_dim: 4096", "hiden_dim: 4096", "did you mean 'hidden_dim'"),
        ("[./a, ./b, ./c]", "[./a, ./b, ./a]", "names './a' twice"),
        ("  mole_task_adapters: [./a, ./b, ./c]\n", "", "list the task adapters"),
        ("[./a, ./b, ./c]", "[./a]", r"mole_task_adapters \(line 10\)"),
        ("  mole_task", "  mole_top_k: 1\n  mole_task", "keep one of them"),
        ("  mole_task", "  batch_size: auto\n  mole_task", "write a number"),
    ],
)
def test_what_is_wrong_names_the_field_and_its_line(old: str, new: str, message: str) -> None:
    assert old in SEED
    with pytest.raises(InputError, match=message) as error:
        read_config(SEED.replace(old, new).encode(), "soup.yaml")
    assert error.value.fix


def test_a_field_that_is_almost_spelt_like_one_is_doubted() -> None:
    """Soup's schema has hundreds of fields, so none of them can be refused."""
    text = SEED.replace("training:", "training:\n  epoch: 9\n  warmup_auto: true\n  lora: {r: 8}")
    line = text.splitlines().index("  epoch: 9") + 1
    (said,) = read_config(text.encode(), "soup.yaml").doubts
    assert said == f"soup.yaml: training.epoch (line {line}): is not read; did you mean epochs?"
    assert read_config(SEED.encode(), "soup.yaml").doubts == ()


def test_an_adapter_is_told_from_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"is an adapter, and no mixture \(it holds no mole"):
        read_mixture_dir(tmp_path)
    (tmp_path / "mole_config.json").write_text("{}")
    with pytest.raises(InputError, match="not clear which of them is meant"):
        read_mixture_dir(tmp_path)


def test_the_docs_name_every_field_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mole.md").read_text()
    table = page.partition("| Field | Meaning | Default |")[2].partition("\n\n")[0]
    least = "base: b\ntask: moe_lora_routing\ndata: {train: t}\n"
    least += "training: {mole_task_adapters: [a, b]}\n"
    found = read_config(least.encode(), "soup.yaml")
    defaults = {
        **found.training.model_dump(mode="json"),
        **found.gate.model_dump(include={"top_k", "temperature", "router"}, mode="json"),
        **found.model_dump(include={"val_split", "max_length", "output"}),
    }
    for field, default in defaults.items():
        row = next(line for line in table.splitlines() if re.search(rf"[`.]{field}`", line))
        assert f"`{default}`" in row, field
