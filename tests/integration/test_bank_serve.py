"""`adapterbot serve` with the real `openai` client: whose answer is whose, limits, and changes."""

from __future__ import annotations

import functools
import http.client
import json
import logging
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import transformers

from adapterbot.bank.store import BankStore
from adapterbot.bank.writer import BankWriter
from adapterbot.commands.serve import ServeOptions, build
from adapterbot.errors import InputError
from tests.bank_server import (
    base_of_characters,
    key,
    key_hash,
    killed_afterwards,
    serving,
    users_with_keys,
)
from tests.bank_worlds import vera_bank
from tests.tiny_models import LONGROPE, save_base

TENANTS = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_of_characters(tmp_path_factory.mktemp("serve") / "tiny")


@pytest.fixture(scope="module")
def bank(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return users_with_keys(base, tmp_path_factory.mktemp("bank") / "users", TENANTS)


@pytest.fixture(scope="module")
def server(base: Path, bank: Path) -> Iterator[str]:
    with serving(base, bank=bank, rows=16, per_tenant=3) as url:
        yield url


@functools.cache  # each reads every certificate of this machine
def client(url: str, user: str | None) -> openai.OpenAI:
    secret = key(user) if user else "wrong"
    return openai.OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0, timeout=60)


def ask(url: str, user: str, prompt: str = "the thing in", **options: Any) -> str:
    given: dict[str, Any] = {"max_tokens": 6, "temperature": 0, **options}
    done = client(url, user).completions.create(model=f"tiny:{user}", prompt=prompt, **given)
    return str(done.choices[0].text)


@pytest.fixture(scope="module")
def canaries(server: str) -> dict[str, str]:
    """What each tenant answers when nobody else asks."""
    return {f"u{index}": ask(server, f"u{index}") for index in range(TENANTS)}


def test_a_base_whose_rows_cannot_join_and_leave_is_refused(bank: Path, tmp_path: Path) -> None:
    """LFM2 does not say that it keeps states: it would start, and fail every request."""
    base = save_base("lfm2", tmp_path / "base", layer_types=["conv", "full_attention"])
    with pytest.raises(InputError, match="keeps a state beside keys and values"):
        build(ServeOptions(base=str(base), bank=bank, device="cpu"))


def test_no_text_grows_so_long_that_others_are_read_otherwise(tmp_path: Path) -> None:
    """LongRoPE: one tenant's text beyond the turn would change the frequencies of the batch."""
    base = save_base("llama", tmp_path / "tiny", rope_parameters=LONGROPE)
    vera_bank(base, tmp_path / "users", 1).close()
    with serving(base, bank=tmp_path / "users", open_to_all=True) as url:
        api = client(url, None)
        tokens = api.completions.create(
            model="tiny", prompt="a" * 20, max_tokens=100, temperature=0
        ).usage
        assert tokens is not None
        assert tokens.total_tokens == 30
        with pytest.raises(openai.BadRequestError, match="this model reads 1 to 29"):
            api.completions.create(model="tiny", prompt="a" * 40)


def test_each_tenants_answer_is_its_own_whoever_asks_beside_it(
    server: str, canaries: dict[str, str]
) -> None:
    # With 24 different answers, one that went to somebody else would show.
    assert len(set(canaries.values())) == TENANTS
    asked = [user for user in canaries for _ in range(6)]

    def one(number: int) -> tuple[str, str]:
        user = asked[(number * 31) % len(asked)]
        # Answers of other lengths, so that rows join and leave while others go on.
        length = 2 + number % 5
        return user, ask(server, user, max_tokens=length)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(len(asked))))
    for user, text in answers:
        assert canaries[user].startswith(text), user
    with urllib.request.urlopen(f"{server}/metrics") as response:
        figures = response.read().decode()
    most = [line for line in figures.splitlines() if line.startswith("adapterbot_batch_rows")]
    total = float(next(line for line in most if "_sum" in line).split()[-1])
    passes = float(next(line for line in most if "_count" in line).split()[-1])
    assert total > 1.5 * passes, "requests of several tenants shared passes"


def test_the_answers_are_those_of_generate(
    server: str, base: Path, bank: Path, canaries: dict[str, str]
) -> None:
    from adapterbot.bank import attach_bank

    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    ids = tokenizer("the thing in", return_tensors="pt").input_ids
    with attach_bank(model, bank):
        for user in ("u3", "u11"):
            done = model.generate(input_ids=ids, tenants=[user], max_new_tokens=6, do_sample=False)
            text = tokenizer.decode(done[0, ids.shape[1] :], skip_special_tokens=True)
            assert text == canaries[user]


def test_the_first_user_of_a_bank_that_was_empty_is_not_answered_as_the_base(
    base: Path, bank: Path, canaries: dict[str, str], tmp_path: Path
) -> None:
    vera_bank(base, tmp_path / "users", 0).close()
    with serving(base, bank=tmp_path / "users") as url:
        with BankStore(bank) as full, BankWriter(tmp_path / "users") as filled:
            filled.add(["u3"], full.gather(["u3"]))
            filled.add_key("u3", key_hash("u3"))
        assert ask(url, "u3") == canaries["u3"]


def test_a_stream_is_the_whole_answer_in_pieces(server: str, canaries: dict[str, str]) -> None:
    pieces = client(server, "u2").completions.create(
        model="tiny:u2",
        prompt="the thing in",
        max_tokens=6,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(pieces)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == canaries["u2"]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("length", "stop")
    assert chunks[-1].usage.completion_tokens <= 6


def test_a_chat_goes_through_the_models_template(server: str) -> None:
    talk = client(server, "u1").chat.completions
    given: dict[str, Any] = {
        "model": "tiny:u1",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
        "temperature": 0,
    }
    whole = talk.create(**given)
    streamed = "".join(
        c.choices[0].delta.content or "" for c in talk.create(stream=True, **given) if c.choices
    )
    assert whole.choices[0].message.content == streamed
    assert streamed == ask(server, "u1", "user: hello\nassistant:", max_tokens=5)
    assert whole.usage.prompt_tokens == len("user: hello\nassistant:")


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(
    server: str, canaries: dict[str, str]
) -> None:
    user, text = next((u, t) for u, t in canaries.items() if len(t) >= 4)
    stop = text[2:4]
    cut = text[: text.find(stop)]
    assert ask(server, user, stop=[stop, "never"]) == cut
    chunks = client(server, user).completions.create(
        model=f"tiny:{user}",
        prompt="the thing in",
        max_tokens=6,
        temperature=0,
        stop=stop,
        stream=True,
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut


def test_a_seed_repeats_itself(server: str) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "top_p": 0.95, "max_tokens": 8}
    once = ask(server, "u5", seed=7, **hot)
    assert ask(server, "u5", seed=7, **hot) == once
    assert any(ask(server, "u5", seed=seed, **hot) != once for seed in range(8, 12))


def test_no_key_reaches_anothers_vectors(server: str) -> None:
    def status(user: str | None, model: str) -> int:
        try:
            client(server, user).completions.create(model=model, prompt="a", max_tokens=1)
        except openai.APIStatusError as error:
            code: int = error.status_code
            return code
        return 200

    assert status("u1", "tiny:u1") == 200
    assert status("u1", "tiny") == 200
    assert status(None, "tiny:u1") == 401
    # Whether u2 is there is not told either.
    assert status("u1", "tiny:u2") == 404
    assert status("u1", "tiny:nobody") == 404
    assert status("u1", "tiny:") == 404
    assert status("u1", "other:u1") == 404
    assert [m.id for m in client(server, "u1").models.list()] == ["tiny", "tiny:u1"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": 3}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    server: str, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client(server, "u1").completions.create(model="tiny:u1", prompt="a", **options)
    assert str(caught.value.param).startswith(param)


def test_a_form_of_the_answer_is_refused_and_its_absence_may_be_said(server: str) -> None:
    asked: dict[str, Any] = {
        "model": "tiny:u1",
        "messages": [{"role": "user", "content": "the thing in"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    chats = client(server, "u1").chat.completions
    said = chats.create(**asked, response_format={"type": "text"})
    assert said.choices == chats.create(**asked).choices
    with pytest.raises(openai.BadRequestError) as caught:
        chats.create(**asked, response_format={"type": "json_object"})
    assert caught.value.param == "response_format.type"


def test_what_is_not_served_is_an_error_that_clients_can_read(server: str) -> None:
    asker = client(server, "u3")
    assert asker.models.retrieve("tiny:u3").id == "tiny:u3"
    for other in ("tiny:u4", "tiny:../u3", "none"):
        with pytest.raises(openai.NotFoundError) as caught:
            asker.models.retrieve(other)
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client(server, None).models.retrieve("tiny:u3")
    with pytest.raises(openai.NotFoundError) as missing:
        asker.embeddings.create(model="tiny:u3", input="x")
    assert "POST /v1/embeddings is not supported" in missing.value.message
    with urllib.request.urlopen(f"{server}/metrics") as figures:
        assert "tiny:u" not in figures.read().decode()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"stop": [""]}, "stop: at most 4 strings of 1 to 500 characters"),
        ({"prompt": ["a", "b"]}, "prompt: input should be"),
        ({"n": 2}, "n: input should be 1"),
        ({"logprobs": 2}, "logprobs: is not supported"),
    ],
)
def test_a_refusal_speaks_of_the_field_and_not_of_types(
    server: str, option: dict[str, Any], says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client(server, "u3").completions.create(model="tiny:u3", **{"prompt": "x", **option})
    assert says in caught.value.message


def test_a_prompt_that_does_not_fit_is_refused(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        with pytest.raises(openai.BadRequestError, match="reads 1 to"):
            ask(server, "u1", "x" * 400)
        with pytest.raises(openai.BadRequestError, match="reads 1 to"):
            client(server, "u1").chat.completions.create(
                model="tiny:u1", messages=[{"role": "user", "content": "x" * 400}]
            )
    finally:
        library.removeHandler(caplog.handler)
    assert caplog.messages == [], "no prompt that is refused runs into indexing errors"
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, "u1", "x" * 5_000_000)
    assert caught.value.status_code == 413


def test_users_come_and_go_while_it_runs(server: str, bank: Path, canaries: dict[str, str]) -> None:
    with BankWriter(bank) as writer:
        writer.add(["guest"], writer.gather(["u4"]))
        writer.add_key("guest", key_hash("guest"))
    assert ask(server, "guest") == canaries["u4"]
    with BankWriter(bank) as writer:
        writer.add(["guest"], writer.gather(["u9"]), replace=True)
        writer.compact()
    assert ask(server, "guest") == canaries["u9"]
    with BankWriter(bank) as writer:
        writer.remove(["guest"])
    with pytest.raises(openai.AuthenticationError):
        ask(server, "guest")


def test_too_much_is_refused_at_once(base: Path, bank: Path) -> None:
    options: dict[str, Any] = {"rows": 1, "waiting": 2, "per_tenant": 2}
    with serving(base, bank=bank, **options) as url, ThreadPoolExecutor(10) as pool:

        def one(number: int) -> int:
            user = f"u{number % 5}"
            try:
                ask(url, user, max_tokens=200)
            except openai.RateLimitError as error:
                return 429 if error.response.headers["retry-after"] else 0
            return 200

        found = list(pool.map(one, range(10)))
    assert set(found) == {200, 429}


def test_a_request_that_takes_too_long_is_ended(base: Path, bank: Path) -> None:
    with serving(base, bank=bank, seconds=0.02) as url:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(url, "u1", max_tokens=240, stop="never there")
        assert caught.value.status_code == 504
        with urllib.request.urlopen(f"{url}/healthz") as response:
            assert response.status == 200


def test_who_is_served_another_bank_than_lies_there_is_not_ready(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, away = tmp_path / "bank", tmp_path / "away"
    users_with_keys(base, path, 3)
    with serving(base, bank=path) as url:

        def ready() -> int:
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
            connection.request("HEAD", "/readyz")
            return connection.getresponse().status

        assert ready() == 200
        manifest = (path / "manifest.json").read_bytes()
        with BankWriter(path) as writer:
            writer.add_key("u1", key_hash("another"))
        (path / "manifest.json").write_text("{")
        assert ready() == 503
        assert str(path) in caplog.text
        (path / "manifest.json").write_bytes(manifest)
        with BankWriter(path) as writer:
            writer.remove(["u0"])
            writer.compact()
        assert ready() == 200, "the same bank"
        path.rename(away)
        assert ready() == 503
        shutil.copytree(away, path)
        assert [ready() for _ in range(3)] == [503] * 3
        assert caplog.text.count("another bank was put in its place") == 1
        with urllib.request.urlopen(f"{url}/healthz") as response:
            assert response.status == 200, "a new process would serve nobody better"


def test_rows_that_were_cut_off_cost_their_tenants_an_answer_and_are_told_of(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The files of a backup are written over the bank's own, one after another."""
    path = tmp_path / "bank"
    users_with_keys(base, path, 3)
    with serving(base, bank=path) as url:
        rows = path / "rows-1.bin"
        os.truncate(rows, rows.stat().st_size - 1)
        ask(url, "u1")
        with pytest.raises(openai.APIStatusError) as caught:
            ask(url, "u2")
        assert (caught.value.status_code, caught.value.code) == (500, "tenant_damaged")
        assert "rows-1.bin is damaged: a row is cut off" in caplog.text
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"{url}/readyz")
        assert unready.value.code == 503
        assert "rows-1.bin is damaged: it has" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_an_answer_that_is_under_way_is_told_to_its_end(
    base: Path, bank: Path, number: int
) -> None:
    """A terminal that was closed cut it off."""
    with killed_afterwards(base, bank) as (port, process):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key("u1"))
        messages: Any = [{"role": "user", "content": "Hi"}]
        name = f"{base.name}:u1"
        asked = {"model": name, "messages": messages, "max_tokens": 200, "seed": 0}
        stream = client.chat.completions.create(**asked, stream=True)
        next(iter(stream))
        process.send_signal(number)
        assert [part.choices[0].finish_reason for part in stream][-1] in ("length", "stop")
        assert process.wait(60) == 0
    assert "Traceback" not in process.written(1)


def test_a_server_logs_as_it_is_told_to(base: Path, bank: Path) -> None:
    with killed_afterwards(base, bank, ADAPTERBOT_LOG_FORMAT="json") as (_, process):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    lines = [json.loads(line) for line in process.written(1).splitlines()]
    assert "Application shutdown complete." in [line["message"] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_told_to_stop_ends_well(base: Path, bank: Path, number: int) -> None:
    with killed_afterwards(base, bank) as (_, process):
        process.send_signal(number)
        assert process.wait(60) == 0, process.written(1)
    assert "Application shutdown complete" in process.written(1)


def test_a_killed_server_comes_back_with_every_user(
    base: Path, bank: Path, canaries: dict[str, str]
) -> None:
    with killed_afterwards(base, bank) as (port, _):
        assert ask(f"http://127.0.0.1:{port}", "u6") == canaries["u6"]
        with BankWriter(bank) as writer:
            writer.add(["late"], writer.gather(["u7"]))
            writer.add_key("late", key_hash("late"))
        assert ask(f"http://127.0.0.1:{port}", "late") == canaries["u7"]
    with serving(base, bank=bank) as url:
        for user in (*list(canaries)[:5], "late"):
            assert ask(url, user) == canaries["u7" if user == "late" else user]
    with BankWriter(bank) as writer:
        writer.remove(["late"])
