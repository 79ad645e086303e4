"""A mixture behind OpenAI's protocol: in one batch with the base and a bank's users."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterbot.commands.serve import ServeOptions, build, named
from adapterbot.errors import InputError
from adapterbot.mole import load_mixture
from adapterbot.mole.mixture import Mixture
from adapterbot.mole.saving import save_mixture
from adapterbot.weights import load_adapter
from adapterbot.weights.mixture_config import GateConfig
from tests.bank_server import serving
from tests.bank_worlds import vera_bank
from tests.tiny_models import save_adapter, save_base

PROMPTS = ("the thing in", "12", "a b c", "nothing else than this")
NEW = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mole-serve")
    base = save_base("llama", root / "tiny")
    names = ("digits", "letters", "words")
    for seed, name in enumerate(names):
        save_adapter(base, root / name, seed=seed, r=4, target_modules=["q_proj", "down_proj"])
    model = AutoModelForCausalLM.from_pretrained(base)
    experts = {name: load_adapter(root / name) for name in names}
    with Mixture(model, experts, GateConfig(num_task_adapters=3), seed=5) as mixture:
        with torch.no_grad():
            mixture.gate.weight.mul_(20)
        save_mixture(
            root / "mixed", mixture, {name: root / name for name in names}, base_model=str(base)
        )
    vera_bank(base, root / "users", 2, scale=0.6).close()
    return root


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    with serving(
        place / "tiny",
        bank=place / "users",
        mixtures=named([str(place / "mixed")]),
        open_to_all=True,
    ) as url:
        yield url


def ask(url: str, model: str, prompt: str) -> str:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
    done = client.completions.create(model=model, prompt=prompt, max_tokens=NEW, temperature=0)
    return str(done.choices[0].text)


def generated(place: Path, *, mixed: bool) -> list[str]:
    """What transformers' own generation says, one prompt after another."""
    model = AutoModelForCausalLM.from_pretrained(place / "tiny").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "tiny")
    if mixed:
        load_mixture(model, place / "mixed")
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=NEW, do_sample=False)
        found.append(str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)))
    return found


def test_each_row_is_answered_by_whom_it_asked(server: str, place: Path) -> None:
    expected = {
        "tiny": generated(place, mixed=False),
        "mixed": generated(place, mixed=True),
    }
    assert expected["tiny"] != expected["mixed"]
    expected["tiny:u1"] = [ask(server, "tiny:u1", prompt) for prompt in PROMPTS]
    assert expected["tiny:u1"] != expected["tiny"]
    asked = [(model, at) for at in range(len(PROMPTS)) for model in expected] * 3
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda pair: ask(server, pair[0], PROMPTS[pair[1]]), asked))
    for (model, at), answer in zip(asked, answers, strict=True):
        assert answer == expected[model][at], (model, PROMPTS[at])


def test_it_is_listed_and_another_name_is_not_found(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    assert {model.id for model in client.models.list()} == {"tiny", "mixed"}
    with pytest.raises(openai.NotFoundError):
        ask(server, "mixed:u1", "the")


def test_what_cannot_be_served_is_refused_before_anything_is_loaded(place: Path) -> None:
    mixed = {"mixed": place / "mixed"}
    for options, says in (
        ({}, "so is --mixture"),
        ({"mixtures": mixed}, "no API keys"),
        ({"mixtures": {"tiny": place / "mixed"}, "open_to_all": True}, "the base's"),
        ({"mixtures": {"a": place / "digits"}, "open_to_all": True}, "an adapter, and no mixture"),
    ):
        with pytest.raises(InputError) as raised:
            build(ServeOptions(base=str(place / "tiny"), **options))  # type: ignore[arg-type]
        assert says in str(raised.value)
    for given in (["a:b=x"], ["a=x", "a=y"], ["=x y"]):
        with pytest.raises(InputError, match="cannot be called"):
            named(given)
