"""What a lock promises of every project: no order is ever a drift, and no byte ever escapes it."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterbot import lock
from adapterbot.commands import lock as commands
from adapterbot.errors import InputError
from adapterbot.files.tree import WorkTree
from adapterbot.lock import environment, hashing
from adapterbot.lock.check import Check
from adapterbot.lock.pinned import read_environment

SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
INDEX = "model.safetensors.index.json"
CONFIG: dict[str, Any] = {
    "base": "./base",
    "task": "sft",
    "data": {
        "train": ["data/train.jsonl", "data/more/*.csv", "data/folder"],
        "validation": "data/val.jsonl",
        "format": "alpaca",
        "max_length": 64,
    },
    "training": {
        "epochs": 5,
        "lr": "1e-4",
        "seed": 7,
        "lora": {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "schedule": {"kind": "cosine", "warmup": {"ratio": 0.1, "steps": None}},
    },
    "output": "./adapter",
}
FILES = {
    "base/config.json": b'{"hidden_size": 8}',
    "base/tokenizer.json": b'{"model": {}}',
    f"base/{INDEX}": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode(),
    f"base/{SHARDS[0]}": bytes(range(256)),
    f"base/{SHARDS[1]}": bytes(64),
    "data/train.jsonl": b'{"a": 1}\n{"a": 2}\n',
    "data/more/one.csv": b"a,b\n1,2\n",
    "data/more/two.csv": b"a,b\n3,4\n",
    "data/folder/deep/x.txt": b"text\n",
    "data/val.jsonl": b'{"a": 3}\n',
    "adapter/adapter_config.json": b"{}",
    "adapter/adapter_model.safetensors": bytes(48),
}
ONCE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def look(project: Path) -> Check:
    return commands.check(project / "soup.lock", project / "soup.yaml")


def outcome(project: Path) -> str:
    try:
        return look(project).status
    except InputError:
        return "bad input"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "soup.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (tmp_path / "requirements.txt").write_text("numpy==2.1.0\ntorch==2.13.0\n")
    commands.write_environment(tmp_path / "soup-env.lock", tmp_path / "requirements.txt")
    commands.write(tmp_path / "soup.yaml", tmp_path / "soup.lock")
    return tmp_path


# ---------------------------------------------------------------- order


def shuffled(value: object, order: random.Random, *, lists: bool = False) -> object:
    """Every mapping inside in another order, and the list of data files, which is no drift."""
    if isinstance(value, dict):
        items = [(k, shuffled(v, order, lists=k == "train")) for k, v in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list) and lists:
        return order.sample(value, len(value))
    return value


@ONCE
@given(order=st.randoms(use_true_random=False), workers=st.integers(1, 6), flow=st.booleans())
def test_no_order_of_keys_files_or_workers_is_a_drift(
    project: Path, order: random.Random, workers: int, flow: bool
) -> None:
    config: Any = shuffled(CONFIG, order)
    text = yaml.safe_dump(config, sort_keys=False, default_flow_style=flow)
    (project / "soup.yaml").write_text(text)
    # Files made anew lie in another order in their folders.
    names = list(FILES)
    order.shuffle(names)
    for name in ("base", "data", "adapter"):
        shutil.rmtree(project / name)
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_bytes(FILES[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "_cores", lambda: workers)
        found = look(project)
    assert found.status == "ok"
    # The settings of the run are advice; of an order only that of the data files is one, since Soup
    # gives the first its share first (`data.interleave`).
    (said,) = (part for part in found.parts if part.part == "training_config")
    assert all(part.ok for part in found.parts if part != said)
    assert said.ok == (config["data"]["train"] == CONFIG["data"]["train"])
    assert ("data.train" in found.note) == (not said.ok)


# ---------------------------------------------------------------- bytes


@ONCE
@given(st.data())
def test_any_byte_changed_in_any_locked_file_is_a_drift(project: Path, data: st.DataObject) -> None:
    path = project / data.draw(st.sampled_from(sorted(FILES)))
    before, after = path.read_bytes(), one_byte_other(path.read_bytes(), data)
    path.write_bytes(after)
    # The index says which shards there are, so one that cannot be read is no model at all.
    assert outcome(project) in {"drift", *(["bad input"] if path.name == INDEX else [])}
    path.write_bytes(before)
    assert look(project).status == "ok"


@ONCE
@given(st.data(), st.sampled_from(["soup.lock", "soup-env.lock", "requirements.txt"]))
def test_a_byte_of_what_is_no_digest_says_the_same_or_is_caught(
    project: Path, data: st.DataObject, name: str
) -> None:
    """The locks and what an environment is read from are known by what they say."""

    def says() -> object:
        written = lock.loads((project / "soup.lock").read_bytes(), "soup.lock")
        env = read_environment(WorkTree(project), "soup-env.lock")
        assert env
        pinned = (written.base_model, written.base_model_sha, written.dataset_sha, written.env_hash)
        return pinned, environment.facts(env)

    path = project / name
    before, meant = path.read_bytes(), says()
    path.write_bytes(one_byte_other(before, data))
    if outcome(project) == "ok":
        assert says() == meant
    path.write_bytes(before)
    assert look(project).status == "ok"


def one_byte_other(content: bytes, data: st.DataObject) -> bytes:
    index = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[index]))
    return content[:index] + bytes([byte]) + content[index + 1 :]
