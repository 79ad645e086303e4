"""Evaluating on a server: the same answers as the engine here, through a network that fails."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from adapterbot.commands.evaluator import Computing
from adapterbot.config import Config, Server, load
from adapterbot.errors import InputError, OurFailure
from adapterbot.eval.answers import Message, Request, Sample
from adapterbot.eval.cache import ScoreCache
from adapterbot.eval.engine import Engine
from adapterbot.eval.evaluation import Evaluation
from adapterbot.eval.local import LocalModel
from adapterbot.eval.questions import Question
from adapterbot.eval.remote import ServerModel
from adapterbot.eval.remote.http import Client
from adapterbot.eval.settings import EngineSettings
from adapterbot.records import Report, TaskResult
from adapterbot.weights.peft_dir import adapter_digest
from tests import example, tiny_suite
from tests.openai_server import OpenAIServer, garbage, hang_up, stall, status, trickle
from tests.ports import free_port
from tests.programs import python

TINY = example.EXAMPLE / "base"
ADAPTER = example.EXAMPLE / "adapters" / "dates"
DAYS = [f"{day:02}/0{day % 9 + 1}/2{day % 10} (US)" for day in range(1, 13)]
WRITTEN = tiny_suite.task(
    "written",
    "exact",
    Request.GENERATE,
    tuple(Sample(id=f"w{i}", prompt=f"{text} ->", expected="x") for i, text in enumerate(DAYS)),
    stop=("\n",),
)
CHATS = tiny_suite.task(
    "chats",
    "exact",
    Request.GENERATE,
    tuple(
        Sample(id=f"c{i}", prompt=text, messages=(Message(role="user", content=text),))
        for i, text in enumerate(DAYS[:4])
    ),
)
WEIGHED = tiny_suite.task(
    "weighed",
    "multiple_choice",
    Request.CHOICES,
    tuple(
        Sample(id=f"m{i}", prompt=text, expected="0", choices=(" 2024-03-04", " 2", "-"))
        for i, text in enumerate(DAYS)
    ),
)
LIKELY = tiny_suite.task(
    "likely",
    "bits_per_byte",
    Request.LIKELIHOOD,
    tuple(
        Sample(id=f"l{i}", prompt=f"{text} ->", expected=f" {text} and so on")
        for i, text in enumerate(DAYS)
    ),
)
TASKS = (WRITTEN, CHATS, WEIGHED, LIKELY)


@pytest.fixture(scope="module")
def shared() -> Iterator[OpenAIServer]:
    with OpenAIServer(TINY) as server:
        yield server


@pytest.fixture
def server(shared: OpenAIServer) -> OpenAIServer:
    shared.faults.clear()
    shared.seen.clear()
    shared.lacks = set()
    shared.refuses = set()
    shared.delay, shared.key, shared.echo, shared.best, shared.most = 0.0, None, True, True, 0
    return shared


@pytest.fixture(scope="module")
def local() -> Callable[[Path | None], tuple[TaskResult, ...]]:
    found: dict[Path | None, tuple[TaskResult, ...]] = {}
    engine = Engine(TINY, EngineSettings(device="cpu", dtype="float32"))

    def evaluate(adapter: Path | None) -> tuple[TaskResult, ...]:
        if adapter not in found:
            found[adapter] = engine.evaluate(TASKS, adapter)
        return found[adapter]

    return evaluate


def evaluation(
    server: OpenAIServer, key: str | None = None, cache: ScoreCache | None = None, **more: Any
) -> Evaluation:
    settings = Server(**{"url": server.url, "model": "tiny"} | more)
    model = ServerModel(str(TINY), settings, key)
    # The waits of a test are short; that they grow is tested apart.
    model._client._backoff = 0.01
    return Evaluation(model, cache=cache or ScoreCache(None))


@pytest.mark.parametrize("adapter", [None, ADAPTER], ids=["base", "adapter"])
def test_the_server_says_what_the_engine_says(server, local, adapter) -> None:
    with evaluation(server) as remote:
        got = remote.evaluate(TASKS, adapter)
    for task, here, there in zip(TASKS, local(adapter), got, strict=True):
        assert [s.sample_id for s in there.samples] == [s.id for s in task.samples]
        for one, other in zip(here.samples, there.samples, strict=True):
            assert other.output == one.output, task.name
            assert other.score == pytest.approx(one.score, abs=1e-4)
            assert other.stats == pytest.approx(one.stats, abs=1e-2)
    assert server.served == ["tiny"], "what was loaded for us is unloaded"


def test_what_is_greedy_is_known_where_the_likeliest_tokens_are_listed(server, local) -> None:
    written = [sample.output for sample in local(None)[0].samples]
    samples = tuple(
        sample.model_copy(update={"choices": (text[:5], f"!{text}")})
        for sample, text in zip(WRITTEN.samples, written, strict=True)
    )
    # Of lm-eval's scorers, which want to know; our engine tells nobody else.
    task = WEIGHED.model_copy(update={"samples": samples, "scorer": "lm_eval_weighed"})
    questions = [Question(task, sample) for sample in samples]

    def greedy(model: LocalModel | ServerModel) -> list[tuple[bool, ...]]:
        with model.under(None, ""):
            said = dict(model.answers(questions))
        return [said[i].greedy for i in range(len(questions))]

    settings = EngineSettings(device="cpu", dtype="float32")
    here = greedy(LocalModel(Engine(TINY, settings).base, settings))
    assert (True, False) in here
    there = ServerModel(str(TINY), Server(url=server.url, model="tiny"), None)
    assert greedy(there) == here
    server.best = False
    assert greedy(there) == [()] * len(here)
    there.close()


def test_a_text_without_a_prompt_counts_all_but_its_first_token(server) -> None:
    """The engine gives the first token an end-of-text to follow; no server can be told to."""
    whole = tuple(s.model_copy(update={"prompt": ""}) for s in LIKELY.samples)
    task = LIKELY.model_copy(update={"samples": whole, "digest": "f" * 64})
    with evaluation(server) as remote:
        (result,) = remote.evaluate([task], None)
    assert all(sample.score is not None and sample.score > 0 for sample in result.samples)


def test_loading_is_by_content_and_ends_with_the_evaluation(server) -> None:
    with evaluation(server) as remote:
        remote.evaluate([WRITTEN], ADAPTER)
        remote.evaluate([WRITTEN], ADAPTER)  # remembered
    digest = adapter_digest(ADAPTER)
    (load_,) = [body for path, body, _ in server.seen if path == "/v1/load_lora_adapter"]
    assert load_["lora_name"].startswith(f"adapterbot-{digest[:16]}-")
    assert load_["lora_path"] == str(ADAPTER)
    asked = [body for path, body, _ in server.seen if path == "/v1/completions"]
    assert len(asked) == len(WRITTEN.samples)
    assert {body["model"] for body in asked} == {load_["lora_name"]}


def test_an_adapter_that_is_served_already_is_not_loaded(server) -> None:
    name = f"team/dates-{adapter_digest(ADAPTER)[:16]}"
    server.load(name, str(ADAPTER))
    try:
        with evaluation(server, adapter="team/dates-{digest}", load=False) as remote:
            remote.evaluate([WRITTEN], ADAPTER)
        assert not any("lora_adapter" in path for path, _, _ in server.seen)
        assert name in server.served
    finally:
        server.handle("/v1/unload_lora_adapter", {"lora_name": name})


def test_a_server_that_cannot_load_says_what_to_do(server) -> None:
    server.lacks = {"/v1/load_lora_adapter"}
    with evaluation(server) as remote, pytest.raises(InputError, match="loads none") as caught:
        remote.evaluate([WRITTEN], ADAPTER)
    assert f"adapterbot-{adapter_digest(ADAPTER)[:16]}" in str(caught.value)
    assert "--lora-modules" in str(caught.value)
    with evaluation(server, load=False) as remote, pytest.raises(InputError, match="serves no"):
        remote.evaluate([WRITTEN], ADAPTER)


# ---------------------------------------------------------------- a network that fails


def test_no_more_at_once_than_allowed_and_all_of_that(server) -> None:
    server.delay = 0.02
    with evaluation(server, concurrency=5) as remote:
        remote.evaluate([WRITTEN], None)
    assert server.most == 5


def test_every_kind_of_failure_is_tried_again_and_changes_nothing(server, local) -> None:
    server.faults.extend(
        [
            status(429, Retry_After="0"),
            hang_up,
            status(503),
            status(500),
            stall(2.0),
            hang_up,
            status(429),
            status(502),
        ]
    )
    with evaluation(server, concurrency=3, timeout=1.5) as remote:
        got = remote.evaluate([WRITTEN, WEIGHED], None)
    assert not server.faults
    wanted = {result.task: result for result in local(None)}
    assert got == (wanted["written"], wanted["weighed"])


@pytest.mark.parametrize(
    "header", ["0.9", "1", formatdate(time.time() + 2, usegmt=True)], ids=["nonsense", "1", "date"]
)
def test_the_server_says_when_to_come_back(server, header) -> None:
    if header not in ("0.9", "1"):
        header = formatdate(time.time() + 2, usegmt=True)
    server.faults.append(status(429, Retry_After=header))
    started = time.monotonic()
    with evaluation(server, concurrency=1) as remote:
        remote.evaluate([WRITTEN], None)
    waited = time.monotonic() - started
    assert waited >= (0.9 if header != "0.9" else 0)


def test_a_server_that_stays_away_is_our_failure_and_bounded(server) -> None:
    server.faults.extend([hang_up] * 1000)
    with (
        evaluation(server, concurrency=2) as remote,
        pytest.raises(OurFailure, match="in 6 tries"),
    ):
        remote.evaluate([WRITTEN], None)
    assert len(server.seen) < 6 * len(WRITTEN.samples)
    server.faults.clear()


@pytest.mark.parametrize(
    ("answers", "longest", "says"),
    [
        (0, 3, "takes no connection: connection refused (start it there, or correct the address"),
        (1, 100, "gave no answer at /models in 6 tries: connection refused (see whether it is up"),
    ],
    ids=["never there", "gone in the middle"],
)
def test_a_wrong_address_is_told_soon_and_a_server_that_went_away_is_waited_for(
    answers: int, longest: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, waits, sleep = free_port(), list[float](), asyncio.sleep
    url = f"http://127.0.0.1:{port}/v1"

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def ask() -> None:
        client = Client(url, None, concurrency=1, timeout=5.0)
        if answers:
            async with await asyncio.start_server(answer, "127.0.0.1", port):
                assert await client.get("/models") == {}
        try:
            await client.get("/models")
        finally:
            await client.close()

    monkeypatch.setattr(asyncio, "sleep", noted)
    with pytest.raises(OurFailure) as caught:
        asyncio.run(ask())
    assert str(caught.value).startswith(f"{url}: the server {says}")
    assert 3 * answers < sum(waits) < longest


def test_an_answer_that_trickles_is_waited_for_no_longer_than_a_silent_one(server) -> None:
    server.faults.append(trickle)
    started = time.monotonic()
    with evaluation(server, concurrency=1, timeout=2.0) as remote:
        remote.evaluate([WRITTEN], None)
    assert time.monotonic() - started < 30


def test_what_was_answered_before_a_failure_is_kept(server) -> None:
    cache, seen = ScoreCache(None), 0
    with evaluation(server, cache=cache, concurrency=1) as first:

        def progress(done: int, total: int) -> None:
            nonlocal seen
            if done == 5 and not server.faults:
                server.faults.extend([status(503)] * 1000)
            seen = done

        with pytest.raises(OurFailure):
            first.evaluate([WRITTEN], None, progress=progress)
    server.faults.clear()
    # By its key the second run's requests are told from one of the first that was on its way.
    with evaluation(server, key="second", cache=cache) as second:
        second.evaluate([WRITTEN], None)
    asked = [
        path
        for path, _, headers in server.seen
        if path == "/v1/completions" and headers.get("Authorization") == "Bearer second"
    ]
    assert len(asked) == len(WRITTEN.samples) - seen


def test_garbage_and_a_refused_sample_are_missing_not_zero(server) -> None:
    server.refuses = {WRITTEN.samples[2].prompt}
    with evaluation(server, concurrency=1) as remote:
        server.faults.append(garbage)
        (result,) = remote.evaluate([WRITTEN], None)
    missing = {s.sample_id: s.missing for s in result.samples if s.score is None}
    assert missing["w2"] == (
        "the server refused: status 400: This model's maximum context length is 9 tokens."
    )
    assert len(missing) == 2
    assert "the server's reply is no completion" in missing.values()


# ---------------------------------------------------------------- what it refuses by name


def test_a_server_without_echo_cannot_weigh(server) -> None:
    server.echo = False
    with evaluation(server) as remote:
        with pytest.raises(InputError, match=r"does not echo .* which the task weighed needs"):
            remote.evaluate([WEIGHED], None)
        remote.evaluate([WRITTEN], None)


def test_a_server_without_an_endpoint_is_named(server) -> None:
    server.lacks = {"/v1/completions"}
    with evaluation(server) as remote:
        remote.evaluate([CHATS], None)
        with pytest.raises(InputError, match="what the task written needs"):
            remote.evaluate([WRITTEN], None)


def test_whole_texts_are_not_read_in_windows(server) -> None:
    task = LIKELY.model_copy(update={"request": Request.ROLLING})
    with evaluation(server) as remote, pytest.raises(InputError, match="whole texts in windows"):
        remote.evaluate([task], None)


def test_chats_cannot_be_weighed(server) -> None:
    sample = WEIGHED.samples[0].model_copy(update={"messages": CHATS.samples[0].messages})
    task = WEIGHED.model_copy(update={"samples": (sample,)})
    with evaluation(server) as remote, pytest.raises(InputError, match="the chats of the task"):
        remote.evaluate([task], None)


def test_a_base_that_is_not_served(server) -> None:
    before = set(threading.enumerate())
    with pytest.raises(InputError, match="serves no model 'other', but tiny"):
        evaluation(server, model="other")
    server.lacks = {"/v1/models"}
    with pytest.raises(InputError, match="does not list its models"):
        evaluation(server)
    assert not [t for t in set(threading.enumerate()) - before if t.name.endswith("(run_forever)")]


def test_the_key_is_sent_and_never_shown(server, caplog) -> None:
    server.key = "s3cret"
    caplog.set_level("DEBUG")
    with evaluation(server, key="s3cret") as remote:
        remote.evaluate([WRITTEN], None)
        server.faults.extend([hang_up] * 1000)
        with pytest.raises(OurFailure) as caught:
            remote.evaluate([WEIGHED], None)
    assert all(headers["Authorization"] == "Bearer s3cret" for _, _, headers in server.seen)
    assert "s3cret" not in caplog.text + str(caught.value) + repr(caught.value.__cause__)
    server.faults.clear()
    with pytest.raises(InputError, match="ADAPTERBOT_SERVER_KEY") as refused:
        evaluation(server, key="wr0ng")
    assert "wr0ng" not in str(refused.value)


# ---------------------------------------------------------------- who chooses it


def chosen_server(config: Config | None, url: str | None = None) -> Server | None:
    return Computing(server=url).chosen(config)[1]


def test_the_address_is_the_options_or_the_configs() -> None:
    config = load(
        b"server: {url: 'http://gpu:8000/v1', model: llama, revision: '7'}\n"
        b"adapters: [{path: a}]\n",
        "adapterbot.yaml",
    )
    assert chosen_server(None) is None
    assert chosen_server(Config(adapters=config.adapters)) is None
    assert chosen_server(config) == Server(url="http://gpu:8000/v1", model="llama", revision="7")
    by_hand = chosen_server(config, "http://other/v1")
    assert by_hand == Server(url="http://other/v1", model="llama", revision="7")


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://user:secret@host/v1", "host:8000", "http://host/v1?key=x", ""]
)
def test_an_address_with_a_password_or_of_another_kind_is_refused(url) -> None:
    with pytest.raises(InputError):
        chosen_server(None, url)


@pytest.mark.parametrize("name", ["dates", "{digest}{", "{0}", "{digest.__class__}", "a b{digest}"])
def test_an_adapters_name_must_hold_its_digest(name) -> None:
    with pytest.raises(ValueError, match="adapter"):
        Server(url="http://host/v1", adapter=name)


def test_the_gate_on_a_server_needs_no_torch_and_ignores_the_pull_requests_address(
    server, tmp_path
) -> None:
    """A regression found over HTTP; the head's own adapterbot.yaml points at somebody else."""
    repository = example.build(tmp_path / "repository")
    example.git(repository, "checkout", "-q", "main")
    config = {
        "server": {"url": server.url, "model": "tiny"},
        "adapters": [{"path": "adapters/dates", "policy": {"self_check": 8}}],
    }
    (repository / "adapterbot.yaml").write_text(json.dumps(config))
    suite = repository / "evals" / "suite.yaml"
    suite.write_text(suite.read_text().replace("tasks:", "defaults: {limit: 24}\ntasks:", 1))
    example.commit(repository, "evaluate on the server")
    example.git(repository, "checkout", "-q", "-")
    example.git(repository, "rebase", "-q", "main")
    config["server"] = {"url": "http://127.0.0.1:9/v1", "model": "evil"}
    (repository / "adapterbot.yaml").write_text(json.dumps(config))
    example.commit(repository, "send it elsewhere")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("torch", "transformers"):
        (hidden / f"{name}.py").write_text("raise ImportError('not on this runner')\n")
    done = python(
        *("-m", "adapterbot", "gate", "--base", "main", "--head", "HEAD", "--json"),
        cwd=repository,
        env={
            "PYTHONPATH": str(hidden),
            "ADAPTERBOT_CACHE": str(tmp_path / "cache"),
            "GITHUB_ACTIONS": "",
            "GITHUB_EVENT_PATH": "",
        },
        timeout=240,
    )
    assert done.returncode == 3, done.stderr
    (adapter,) = Report.model_validate_json(done.stdout).adapters
    assert {m.delta.task for m in adapter.metrics if m.standing == "regressed"} == {"dates_us"}
    assert adapter.eval.device == "a server"
    assert adapter.noise.answers == 0
    assert not list((tmp_path / "cache").glob("*")), "nothing is kept without a revision"
