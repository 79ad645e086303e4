"""`adapterbot mole …` as a user runs it: processes, files on disk, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests import command_line
from tests.hub_server import Hub, Repository
from tests.programs import python
from tests.tiny_models import save_adapter, save_base

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
SOUP = """\
base: ./base
task: moe_lora_routing
data: {train: ./rows.jsonl, val_split: 0.25, max_length: 64}
training:
  mole: {num_task_adapters: 2, hidden_dim: 32, temperature: 1.0, top_k: 1}
  mole_task_adapters: [./digits, ./letters]
  epochs: EPOCHS
  batch_size: 4
  lr: 0.05
  eval_steps: 1
  seed: 7
output: ./mixture
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mole")
    save_base("llama", root / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "base")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(root / "base")
    for seed, name in enumerate(("digits", "letters")):
        save_adapter(root / "base", root / name, seed=seed, r=4, target_modules=["q_proj"])
    rows = [{"instruction": f"say {i}", "output": str(i)} for i in range(12)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command_line.run("mole", *arguments, cwd=root)


def result(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_from_a_soup_yaml_to_routes(made: Path) -> None:
    (made / "soup.yaml").write_text(SOUP.replace("EPOCHS", "2"))
    trained = result(command(made, "train", "--json"))
    assert trained["experts"] == ["digits", "letters"]
    assert (trained["rows"], trained["held_out"]) == (9, 3)
    again = command(made, "train", "--json")
    assert result(again) == trained
    assert "this training ended before" in again.stderr
    assert "load" not in again.stderr
    ending = made / "mixture" / "training.json"
    noted = ending.read_text()
    ending.write_text(json.dumps(json.loads(noted) | {"held_out": 0}))
    assert ", training loss " in command(made, "train").stdout, "no row was held out"
    ending.write_text(noted)
    assert ", held-out loss " in command(made, "train").stdout
    info = result(command(made, "info", "mixture", "--json"))
    assert [expert["path"] for expert in info["experts"]] == ["../digits", "../letters"]
    assert info["gate"]["hidden_dim"] == 32
    result(command(made, "export", "mixture", "-o", "alone", "--json"))
    again = command(made, "export", "mixture", "-o", "alone")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    manifest = made / "alone" / "mole_config.json"
    moved = json.loads(manifest.read_text()) | {"base_model": "./base"}
    manifest.write_text(json.dumps(moved))
    lost = command(made / "digits", "route", "../alone", "Hi")
    assert lost.returncode == 2
    assert "(name the base with --base; " in lost.stderr
    routes = result(
        command(
            made, "route", "alone", "say <b>1</b>", "--base", "base", "--max-tokens", "3",
            "--html", "routes.html", "--json",
        )
    )  # fmt: skip
    assert routes["experts"] == ["digits", "letters"]
    assert routes["layers"] == list(range(len(routes["tokens"][0]["weights"])))
    assert sum(token["written"] for token in routes["tokens"]) in (1, 2, 3)
    assert all(sum(layer) == 1 for token in routes["tokens"] for layer in token["weights"])
    page = (made / "routes.html").read_text()
    assert page.count("<td><svg ") == 2 * len(routes["tokens"])
    assert "<b>" not in page, "attack: markup in a prompt, in a page that is opened locally"


def test_held_out_rows_that_are_trained_on_are_counted(made: Path, tmp_path: Path) -> None:
    asked = (json.dumps({"instruction": f"say {i}", "output": "x"}) + "\n" for i in range(10, 14))
    (made / "held.jsonl").write_text("".join(asked))
    text = SOUP.replace("EPOCHS", "1").replace("val_split: 0.25", "validation: ./held.jsonl")
    (made / "overlap.yaml").write_text(text)
    done = command(made, "train", "-c", "overlap.yaml", "-o", str(tmp_path / "out"), "--json")
    assert result(done)["held_out"] == 4
    assert "2 of 4 held-out rows ask what a training row asks" in done.stderr


def test_a_killed_training_leaves_no_mixture_and_goes_on(made: Path, tmp_path: Path) -> None:
    (made / "soup.yaml").write_text(SOUP.replace("EPOCHS", "40"))
    out = tmp_path / "out"
    process = command_line.start("mole", "train", "-o", out, cwd=made)
    deadline = time.monotonic() + 60
    while not (out / "training.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "mole_config.json").exists()
    done = command(made, "train", "-o", str(out), "--json")
    result(done)
    first = int(done.stderr.split("/")[0].split()[-1])
    assert first > 1, "it went on from the checkpoint"
    whole = tmp_path / "whole"
    assert (
        result(command(made, "train", "-o", str(whole), "--json"))["loss"] == result(done)["loss"]
    )
    for file in whole.iterdir():
        assert file.read_bytes() == (out / file.name).read_bytes(), file.name


def test_a_training_has_ended_only_for_the_mixture_that_it_wrote(
    made: Path, tmp_path: Path
) -> None:
    (made / "soup.yaml").write_text(SOUP.replace("EPOCHS", "1"))
    out = tmp_path / "out"
    first = result(command(made, "train", "-o", str(out), "--json"))
    gate = (out / "gate.safetensors").read_bytes()
    (out / "gate.safetensors").unlink()
    again = command(made, "train", "-o", str(out), "--json")
    assert result(again) == first
    assert "ended before" not in again.stderr
    assert (out / "gate.safetensors").read_bytes() == gate
    (out / "training.safetensors").unlink()  # as a refusal says, to train anew
    anew = command(made, "train", "-o", str(out), "--json")
    assert "ended before" not in anew.stderr
    assert "\n1/" in anew.stderr or anew.stderr.startswith("1/")
    (made / "more.jsonl").write_text((made / "rows.jsonl").read_text() * 2)
    (made / "more.yaml").write_text(SOUP.replace("EPOCHS", "1").replace("rows.jsonl", "more.jsonl"))
    other = command(made, "train", "-c", "more.yaml", "-o", str(out))
    assert other.returncode == 2
    assert "is of a run with another configuration, other data" in other.stderr
    assert "load" not in other.stderr


def test_a_training_over_a_base_on_the_hub_has_ended_before_that_is_loaded(
    made: Path, tmp_path: Path
) -> None:
    files = {file.name: file.read_bytes() for file in (made / "base").iterdir()}
    lfs = frozenset(name for name in files if name.endswith(".safetensors"))
    kept = Repository("1" * 40, files, lfs=lfs, serves_lfs=True)
    text = SOUP.replace("EPOCHS", "1").replace("./base", "org/base")
    (made / "hub.yaml").write_text(text)

    def train(url: str) -> subprocess.CompletedProcess[str]:
        settings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        said = ("mole", "train", "-c", "hub.yaml", "-o", tmp_path / "out", "--json")
        return python("-m", "adapterbot", *map(str, said), cwd=made, env=settings)

    with Hub({"models/org/base": kept}) as hub:
        first = train(hub.url)
        for url in (hub.url, "http://127.0.0.1:9"):  # the Hub, and its silence
            again = train(url)
            assert result(again) == result(first)
            assert "this training ended before" in again.stderr
            assert "load" not in again.stderr
        files = {**files, "generation_config.json": b'{"eos_token_id": 1}'}
        hub.repositories["models/org/base"] = Repository("2" * 40, files, lfs, serves_lfs=True)
        other = train(hub.url)
        assert other.returncode == 2, "the base is another one now"
        assert "is of a run with another configuration, other data" in other.stderr


def test_another_base_is_refused_before_anything_is_loaded(made: Path, tmp_path: Path) -> None:
    save_base("llama", tmp_path / "wide", hidden_size=64)
    text = SOUP.replace("EPOCHS", "1").replace("./base", str(tmp_path / "wide"))
    (made / "other.yaml").write_text(text)
    done = command(made, "train", "-c", "other.yaml", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "digits" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_expert_by_two_names_is_refused(made: Path) -> None:
    text = SOUP.replace("EPOCHS", "1").replace("./letters", "./letters/../digits")
    (made / "twice.yaml").write_text(text)
    done = command(made, "train", "-c", "twice.yaml", "-o", "twice")
    assert done.returncode == 2
    assert "letters/../digits: is a copy of digits (name it once)" in done.stderr
    assert not (made / "twice").exists()


def test_where_no_mixture_can_be_is_told_before_anything_is_loaded(made: Path) -> None:
    (made / "soup.yaml").write_text(SOUP.replace("EPOCHS", "1"))
    (made / "file").write_text("")
    before = sorted((made / "digits").iterdir())
    for place, says in (
        ("digits", "digits: output: holds an adapter, and a mixture beside it"),
        ("file", "file: cannot be written: Not a directory"),
        ("file/below", "file/below: cannot be written: Not a directory"),
    ):
        done = command(made, "train", "-o", place)
        assert done.returncode == 2
        assert says in done.stderr
        assert "load" not in done.stderr
    assert sorted((made / "digits").iterdir()) == before
