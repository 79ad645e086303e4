"""What a client is sent of an answer that grows faster than it is written to."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from adapterbot.bank.serve.answering import _Client
from adapterbot.bank.serve.app import _Conversation
from adapterbot.bank.serve.jobs import Piece
from adapterbot.bank.serve.protocol import ChatRequest, CompletionRequest, Refused, parse
from adapterbot.bank.serve.scheduler import Limits


def client(*pieces: Piece) -> _Client:
    """Who looks when these have come; neither request nor job is looked at then."""
    queue = asyncio.Queue[Piece]()
    for piece in pieces:
        queue.put_nowait(piece)
    return _Client(cast("Any", None), cast("Any", None), queue)


def test_what_came_meanwhile_goes_out_as_one() -> None:
    found = asyncio.run(client(Piece("a"), Piece("b"), Piece("c", "stop")).more())
    assert found == Piece("abc", "stop")


def test_nothing_is_waited_for_once_there_is_text() -> None:
    assert asyncio.run(client(Piece("a")).more()) == Piece("a")


def test_a_failure_is_told_also_behind_text() -> None:
    with pytest.raises(Refused):
        asyncio.run(client(Piece("a"), Piece(error=ValueError("x"))).more())


def request(path: str, *, gone: bool = False, **content: Any) -> Request:
    """A request, whose client has hung up when it has sent it, or has not."""
    sent = iter([{"type": "http.request", "body": json.dumps(content).encode()}])

    async def receive() -> dict[str, Any]:
        for message in sent:
            return message
        if not gone:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "path": path, "headers": [], "method": "POST"}, receive)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("limits", [Limits(per_tenant=1), Limits(waiting=1)])
def test_a_prompt_that_is_long_to_read_keeps_nobody_waiting(chat: bool, limits: Limits) -> None:
    """Megabytes of text take a tokenizer seconds."""
    looked_at, go_on = threading.Event(), threading.Event()

    class Slow:
        chat_template = "t"

        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            return "text"

        def __call__(self, *_: Any, **__: Any) -> dict[str, list[int]]:
            looked_at.set()
            assert go_on.wait(60)
            return {"input_ids": []}

    service: Any = SimpleNamespace(
        name="base",
        base=SimpleNamespace(tokenizer=Slow(), context=8),
        store=None,
        mixtures=frozenset(),
        open_to_all=True,
        scheduler=SimpleNamespace(alive=True, limits=limits),
    )
    talk = _Conversation(service)

    async def both() -> None:
        handle, asked = (
            (talk.chat, request("/", model="base", messages=[{"role": "user", "content": "x"}]))
            if chat
            else (talk.complete, request("/", model="base", prompt="x"))
        )
        long = asyncio.create_task(handle(asked))
        assert await asyncio.to_thread(looked_at.wait, 60)
        assert (await talk.health(asked)).status_code == 200
        with pytest.raises(Refused, match="too many prompts") as refused:
            await talk.complete(request("/", model="base", prompt="x"))
        assert refused.value.status == 429
        go_on.set()
        with pytest.raises(Refused, match="0 tokens"):
            await long
        with pytest.raises(Refused, match="0 tokens"):
            await talk.complete(request("/", model="base", prompt="x"))

    asyncio.run(asyncio.wait_for(both(), 60))


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "3"}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stream": "no"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"z" * 100_000: 1}, "z" * 200),
    ],
)
def test_what_is_not_meant_by_its_type_is_refused_and_not_guessed(
    given: dict[str, Any], param: str
) -> None:
    """`true` was one token, "no" a stream that is off; usage that nobody would send was passed over
    in silence; and a refusal was as long as the field's name."""
    with pytest.raises(Refused) as refused:
        parse(CompletionRequest, json.dumps({"model": "m", "prompt": "x", **given}).encode())
    assert (refused.value.status, refused.value.param) == (400, param)
    assert len(str(refused.value)) < 300


def test_who_speaks_in_a_chat_is_told_to_the_template() -> None:
    """`name` was taken and thrown away."""
    said = [{"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "bob"}]
    body = json.dumps({"model": "m", "messages": said}).encode()
    asked: ChatRequest = parse(ChatRequest, body)
    assert asked.messages[0].turn == {"role": "user", "content": "hi", "name": "bob"}


def test_attack_who_sends_many_long_prompts_keeps_nobody_else_waiting_for_them() -> None:
    """Sixteen prompts of four megabytes kept everybody else's first words waiting for a minute and
    a half: they were read in the order in which they came."""
    read: list[str] = []
    looked_at, go_on = threading.Event(), threading.Event()

    def tokenizer(text: str, **_: Any) -> dict[str, list[int]]:
        read.append(text)
        looked_at.set()
        assert go_on.wait(60)
        return {"input_ids": []}

    service: Any = SimpleNamespace(
        name="base",
        base=SimpleNamespace(tokenizer=tokenizer, context=8),
        store=None,
        mixtures=frozenset({"other"}),
        open_to_all=True,
        scheduler=SimpleNamespace(alive=True, limits=Limits(seconds=60)),
    )
    talk = _Conversation(service)

    async def all_of_them() -> None:
        asked = [("base", f"long {n}", n == 2) for n in range(5)] + [("other", "short", False)]
        tasks = []
        for model, prompt, gone in asked:
            made = request("/", gone=gone, model=model, prompt=prompt)
            tasks.append(asyncio.create_task(talk.complete(made)))
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(looked_at.wait, 60)
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(all_of_them(), 60))
    assert read[:2] == ["long 0", "short"]
    assert read[2:] == ["long 1", "long 3", "long 4"], "nobody waits for the one between"
    assert not talk._turns
