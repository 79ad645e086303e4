"""How a base is loaded: settings that are honoured or refused, and bases that mean harm."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from adapterbot.errors import InputError, OurFailure
from adapterbot.eval import base_model, chat
from adapterbot.eval.answers import Answer, Message, Request, Sample
from adapterbot.eval.base_model import load_base
from adapterbot.eval.engine import Engine
from adapterbot.eval.found_base import device_of
from adapterbot.eval.local import LocalModel
from adapterbot.eval.prompts import Prompts
from adapterbot.eval.questions import Question
from adapterbot.eval.settings import EngineSettings, engine_settings
from adapterbot.lock.base_guard import inspect_base
from adapterbot.weights.header import HEADER_LIMIT, read_header
from tests import tiny_suite
from tests.processes import needs_proc
from tests.programs import python
from tests.tiny_models import save_adapter, save_base

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

TASKS = (tiny_suite.generate(8), tiny_suite.choices(4))


# ---------------------------------------------------------------- settings


def test_settings_come_from_the_configuration_and_the_command_line() -> None:
    configured = EngineSettings(dtype="bfloat16", token_budget=100)
    chosen = engine_settings(configured, ["token_budget=200", "deterministic=false"], "cpu")
    assert (chosen.dtype, chosen.token_budget, chosen.device) == ("bfloat16", 200, "cpu")
    assert not chosen.deterministic
    assert engine_settings(None) == EngineSettings()


@pytest.mark.parametrize(
    ("given", "device", "field"),
    [
        (["speed=high"], None, "--engine"),
        (["dtype"], None, "--engine"),
        (["dtype=float8"], None, "engine.dtype"),
        (["token_budget=0"], None, "engine.token_budget"),
        (["attn_implementation=evil/kernel"], None, "engine.attn_implementation"),
        ([], "tpu", "--device"),
        (["device_map=auto"], "cpu", "engine"),
    ],
)
def test_settings_that_cannot_be_are_named(
    given: list[str], device: str | None, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        engine_settings(None, given, device)
    assert caught.value.field == field


def test_a_device_that_is_not_here_is_refused_before_all_else_is_imported() -> None:
    said = """
import sys
from adapterbot.commands.evaluator import engine
from adapterbot.errors import InputError
from adapterbot.eval.settings import EngineSettings
try:
    engine(EngineSettings(device="cuda:0"))()
except InputError as error:
    print(error, "transformers" in sys.modules)
"""
    done = python("-c", said, env={"CUDA_VISIBLE_DEVICES": ""}, check=True)
    assert done.stdout.startswith("device: cuda:0 is asked for, but there is no CUDA device here")
    assert done.stdout.endswith("False\n")


def test_a_device_that_is_not_here_is_refused_before_the_base_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device here"):
        load_base("no/such/base", EngineSettings(device="cuda"))


def test_a_gpu_of_another_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert device_of("cuda:1").index == 1
    assert device_of("cuda").type == "cuda"
    with pytest.raises(InputError, match="cuda:2 is asked for, but the last CUDA device here is c"):
        device_of("cuda:2")


@pytest.mark.parametrize("where", ["loading", "moving"])
def test_a_base_that_the_memory_does_not_hold_is_no_crash(
    base: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 112.00 MiB")

    name = "from_pretrained" if where == "loading" else "to"
    monkeypatch.setattr(transformers.LlamaForCausalLM, name, full)
    with pytest.raises(OurFailure, match="base: does not fit into the device's memory"):
        load_base(base, EngineSettings(device="cpu"))


def test_a_base_of_which_a_part_is_left_on_the_disk_is_too_large(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As accelerate does on its own where the GPUs are full."""
    parts = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.norm", "lm_head")
    places = {**dict.fromkeys(parts, "cpu"), "model.layers.1": "disk"}
    options = {"device_map": places, "offload_folder": str(tmp_path)}
    monkeypatch.setattr(base_model, "_placement", lambda *_: options)
    with pytest.raises(OurFailure, match="base: does not fit into the memory of all GPUs together"):
        load_base(base, EngineSettings(device_map="auto"))


def test_an_adapter_that_the_memory_does_not_hold_is_not_to_blame(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    plain = save_adapter(base, tmp_path / "plain")
    by_peft = save_adapter(base, tmp_path / "dora", use_dora=True)
    with Engine(base, EngineSettings(device="cpu")) as engine:
        for adapter, where in (
            (plain, "adapterbot.weights.attachment.Attachment.swap"),
            (by_peft, "peft.PeftModel.load_adapter"),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(where, lambda *_, **__: full())
                with pytest.raises(OurFailure, match="does not fit into the device's memory besi"):
                    engine.evaluate(TASKS, adapter)
            engine.evaluate(TASKS, adapter)
        mixture: Any = SimpleNamespace(attach=full, digest="d", parts=(), shown="a mixture")
        with pytest.raises(OurFailure, match="a mixture: does not fit into the device's memory b"):
            engine.evaluate(TASKS, mixture)


def outputs(base: Path, adapter: Path | None = None, **settings: Any) -> list[list[str]]:
    with Engine(base, EngineSettings(dtype="float32", **settings)) as engine:
        return [[s.output for s in r.samples] for r in engine.evaluate(TASKS, adapter)]


def test_a_device_map_changes_nothing(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "a", r=4, target_modules=["q_proj", "lm_head"])
    assert outputs(base, adapter, device_map="auto") == outputs(base, adapter)


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_answers_under_adapters(bits: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (the extra `quantize`) is missing")
    # Blocks of 64 weights are quantised together.
    base = save_base("llama", tmp_path / "base", hidden_size=64, intermediate_size=128)
    adapter = save_adapter(base, tmp_path / "a", r=4, target_modules=["q_proj", "v_proj"])
    settings = EngineSettings(dtype="float32", device="cpu", quantization=bits)
    with Engine(base, settings) as engine:
        kinds = {type(m).__name__ for m in engine.base.model.modules()}
        assert kinds & {"Linear4bit", "Linear8bitLt"}
        bare, under = (engine.evaluate(TASKS, which) for which in (None, adapter))
    assert bare != under
    assert all(s.score is not None for r in under for s in r.samples)


def test_a_base_in_8_bits_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes has a word for each of its layers in each pass."""
    monkeypatch.setattr(base_model, "_require", lambda *_: None)
    monkeypatch.setattr(logging.getLogger("bitsandbytes.autograd"), "level", logging.NOTSET)
    base_model._placement(EngineSettings(quantization="8bit"), torch.device("cpu"), torch.bfloat16)
    assert not logging.getLogger("bitsandbytes.autograd._functions").isEnabledFor(logging.WARNING)


def test_a_package_that_is_missing_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "find_spec", lambda _: None)
    for name, value in (
        ("quantization", "4bit"),
        ("device_map", "auto"),
        ("attn_implementation", "flash_attention_2"),
    ):
        with pytest.raises(OurFailure, match="needs the package") as caught:
            load_base(base, EngineSettings(**{name: value}))
        assert caught.value.field == f"engine.{name}"
        assert "pip install" in str(caught.value.fix)


# ---------------------------------------------------------------- bases that mean harm


@pytest.mark.parametrize(
    "claim",
    [
        {"num_hidden_layers": 1000},
        {"num_local_experts": 10**6},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"layer_types": ["full_attention"] * 50_000},
    ],
)
def test_a_model_larger_than_its_weights_is_not_built(
    claim: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    """Attack: a config of a few bytes has the job build modules until it dies."""
    hollow = save_base("llama", tmp_path / "hollow")
    config = json.loads((hollow / "config.json").read_text()) | claim
    (hollow / "config.json").write_text(json.dumps(config))
    started = time.process_time()
    with pytest.raises(InputError, match="claims") as caught:
        load_base(hollow, EngineSettings())
    assert time.process_time() - started < 5, "refused before it is built"
    assert caught.value.file == str(hollow / "config.json")


@pytest.mark.parametrize(
    "claim",
    [
        {"shared_expert_intermediate_size": 5632},  # Qwen1.5-MoE
        {"num_experts": 16_384},  # Doge, whose dense models say so too
        {"text_config": {"max_window_layers": 80}},
    ],
)
def test_widths_and_bounds_are_no_claims(claim: dict[str, Any], tmp_path: Path) -> None:
    sound = save_base("llama", tmp_path / "sound")
    config = json.loads((sound / "config.json").read_text()) | claim
    (sound / "config.json").write_text(json.dumps(config))
    inspect_base(sound, "base")


def test_a_config_of_many_megabytes_is_not_parsed(tmp_path: Path) -> None:
    """Attack: nested or endless JSON where a kilobyte belongs."""
    (tmp_path / "config.json").write_text(f'{{"a": "{"x" * 2_000_000}"}}')
    with pytest.raises(InputError, match="bytes long"):
        load_base(tmp_path, EngineSettings())


def test_a_header_of_many_megabytes_is_not_parsed(tmp_path: Path) -> None:
    """Attack: a header that costs seconds to read, in every job that looks at it."""
    file = tmp_path / "x.safetensors"
    size = 18_000_000
    file.write_bytes(size.to_bytes(8, "little") + b"{" + b" " * (size - 1))
    with pytest.raises(InputError, match="claims a header of 18,000,000 bytes"):
        read_header(file)
    assert size > HEADER_LIMIT


# ---------------------------------------------------------------- chat templates


def asked(base: Path, template: str, count: int = 2) -> list[tuple[int, ...]]:
    prompts = Prompts(load_base(base, EngineSettings(device="cpu")).tokenizer, "models/base")
    prompts._tokenizer.chat_template = template
    return prompts.prompts(
        [
            Sample(id=str(i), prompt="x", messages=(Message(role="user", content=f"in {i}"),))
            for i in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
            "takes longer",
        ),
        pytest.param("{{ 'x' * 10000000000 }}", "too much memory|died|die", marks=needs_proc),
        ("{{ raise_exception('no system role') }}", "cannot be rendered: no system role"),
        ("{{ messages[7].content }}", "cannot be rendered"),
        ("{% for %}", "cannot be rendered"),
    ],
    ids=["loops", "fills the memory", "refuses", "undefined", "broken"],
)
def test_a_template_cannot_hang_or_fill_the_job(
    template: str, says: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: a base model whose chat template never ends, or asks for ten gigabytes."""
    monkeypatch.setattr(chat, "_SECONDS", 1.0)
    started = time.perf_counter()
    with pytest.raises(InputError, match=says) as caught:
        asked(base, template)
    assert time.perf_counter() - started < 60
    assert (caught.value.file, caught.value.field) == ("models/base", "chat_template")


def test_an_interrupted_template_leaves_no_second_process_behind() -> None:
    """Ctrl-C reaches the child too: it must end, and not go on with its parent's work."""
    code = """
import sys
from adapterbot.errors import InputError
from adapterbot.eval.answers import Message
from adapterbot.eval.chat import render_chats

def interrupted(chat):
    raise KeyboardInterrupt

try:
    render_chats(interrupted, [(Message(role="user", content="x"),)], file="base")
except InputError as error:
    print(error.message)
except KeyboardInterrupt:
    print("the child goes on")
"""
    done = python("-c", code, timeout=60)
    assert done.stdout == "made the process that rendered it die\n"


def test_a_template_is_rendered_once_for_all_samples(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks: list[int] = []
    real = os.fork

    def counted() -> int:
        forks.append(1)
        return real()

    monkeypatch.setattr(os, "fork", counted)
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    assert len(set(asked(base, template, 50))) == 50
    assert len(forks) == 1


def test_options_of_a_chat_are_weighed_behind_the_template(base: Path) -> None:
    loaded = load_base(base, EngineSettings(device="cpu", dtype="float32"))
    loaded.tokenizer.chat_template = "[{{ messages[0].content }}]"
    samples = tuple(
        Sample(
            id=str(i),
            prompt="x",
            messages=(Message(role="user", content=f"in {i}"),),
            expected="0",
            choices=("a", "the bin"),
        )
        for i in range(3)
    )
    task = tiny_suite.task("chosen", "multiple_choice", Request.CHOICES, samples)
    one = LocalModel(loaded, EngineSettings(token_budget=1000))
    found = dict(one.answers([Question(task, sample) for sample in samples]))
    assert all(isinstance(a, Answer) and len(a.loglikelihoods) == 2 for a in found.values())


@needs_proc
def test_a_renderer_that_waits_for_what_another_thread_held_is_replaced(monkeypatch) -> None:
    """A fork has only the thread that forked: a lock of another one is never given back in it."""
    monkeypatch.setattr(chat, "_PATIENCE", 0.3)
    lock = threading.Lock()

    def shout(text: str) -> str:
        with lock:
            return text.upper()

    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert chat.render_apart(shout, ["a"], 20.0) == (["A"], "")
    with lock:
        texts, problem = chat.render_apart(shout, ["a"], 1.0)
    assert texts == []
    assert "takes longer than 1 s" in problem


def test_a_template_is_rendered_without_proc(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has none."""
    monkeypatch.setattr(chat, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(chat, "_PATIENCE", 0.1)

    def late(text: str) -> str:
        time.sleep(0.5)
        return text.upper()

    assert len(asked(base, "[{{ messages[0].content }}]")) == 2
    assert chat.render_apart(late, ["a"], 20.0) == (["A"], "")
