"""From a prompt to its answer over HTTP: the job in the queue, its pieces whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from adapterbot.bank.serve.jobs import Ask, Job, Piece, Who
from adapterbot.bank.serve.protocol import ChatRequest, CompletionRequest, Refused
from adapterbot.bank.serve.refusals import gone, refusal
from adapterbot.bank.serve.scheduler import Busy, Stopping
from adapterbot.bank.serve.service import Service
from adapterbot.bank.serve.shape import Shape

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Asking:
    """A request as it was taken in.

    Attributes:
        request: the client's, which may go away.
        asked: how it is to be answered.
        who: as which tenant or mixture.
        row: what tells the tenant's row from any other.
        account: on whose account.
        deadline: when its time is up, on the monotonic clock.
    """

    request: Request
    asked: ChatRequest | CompletionRequest
    who: Who
    row: bytes | None
    account: Who
    deadline: float


async def answer(service: Service, asking: Asking, prompt: tuple[int, ...]) -> Response:
    """What is said to a prompt, token ids, whole or as a stream.

    Raises:
        Refused: the prompt does not fit, there is no room for a job now, or it failed before its
            first text.
    """
    asked = asking.asked
    client = _Client(asking.request, *_submitted(service, asking, prompt))
    kind = "chat.completion" if isinstance(asked, ChatRequest) else "text_completion"
    shape = Shape(kind, asked.model, len(prompt))
    if asked.stream:
        # The first piece is waited for, so that what fails before it fails with a status.
        stream = _events(client, await client.more(), shape, usage=asked.usage_in_stream)
        return StreamingResponse(stream, media_type="text/event-stream")
    text = ""
    while True:
        piece = await client.more()
        text += piece.text
        if piece.finish:
            return JSONResponse(shape.whole(text, piece.finish, len(client.job.answer)))


def _submitted(
    service: Service, asking: Asking, prompt: tuple[int, ...]
) -> tuple[Job, asyncio.Queue[Piece]]:
    base, asked = service.base, asking.asked
    room = (base.context or 2**31) - len(prompt)
    if not prompt or room < 1:
        raise Refused(
            400,
            f"the prompt has {len(prompt)} tokens; this model reads 1 to"
            f" {(base.context or 2**31) - 1}",
            code="context_length_exceeded",
        )
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Piece]()
    seed = secrets.randbits(62) if asked.seed is None else asked.seed & (2**62 - 1)
    wanted = asked.limit or service.limit
    tenant, mixture = asking.who
    ask = Ask(
        prompt,
        tenant,
        min(wanted, room, service.limit),
        asked.stops,
        service.choice(asked.temperature, asked.top_p, seed),
        mixture,
        asking.row,
    )
    job = Job(
        ask,
        lambda piece: _hand_over(loop, pieces, piece),
        lambda ids: str(base.tokenizer.decode(list(ids), skip_special_tokens=True)),
        base.eos,
        deadline=asking.deadline,
        account=asking.account,
        streamed=asked.stream,
    )
    try:
        service.scheduler.submit(job)
    except (Busy, Stopping) as error:
        raise refusal(error) from error
    return job, pieces


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


@dataclass(frozen=True)
class _Client:
    """Who waits for a job's pieces."""

    request: Request
    job: Job
    pieces: asyncio.Queue[Piece]

    async def more(self) -> Piece:
        """More of the answer: what came while others were written to goes out as one.

        Raises:
            Refused: the job failed, or the client has gone, which takes its job along.
        """
        piece = _sound(await self._next())
        text = piece.text
        while piece.finish is None and not self.pieces.empty():
            piece = _sound(self.pieces.get_nowait())
            text += piece.text
        return Piece(text, piece.finish)

    async def _next(self) -> Piece:
        while True:
            try:
                return await asyncio.wait_for(self.pieces.get(), _POLL_SECONDS)
            except TimeoutError:
                if await self.request.is_disconnected():
                    self.job.cancel()
                    raise gone() from None
            except asyncio.CancelledError:
                self.job.cancel()
                raise


def _sound(piece: Piece) -> Piece:
    if piece.error is not None:
        raise refusal(piece.error) from piece.error
    return piece


async def _events(
    client: _Client, piece: Piece, shape: Shape, *, usage: bool
) -> AsyncIterator[bytes]:
    try:
        yield _event(shape.start())
        while True:
            if piece.text:
                yield _event(shape.part(piece.text, None))
            if piece.finish:
                break
            piece = await client.more()
        yield _event(shape.part("", piece.finish))
        if usage:
            yield _event(shape.usage_only(len(client.job.answer)))
        yield b"data: [DONE]\n\n"
    except Refused as refused:
        yield _event(refused.body())
    finally:
        client.job.cancel()  # which does nothing to one that has ended


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
