"""OpenAI's protocol over HTTP: who may ask, what is asked, and the answer whole or as a stream."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from adapterbot.bank.serve.jobs import Ask, Job, Piece
from adapterbot.bank.serve.metrics import Metrics
from adapterbot.bank.serve.protocol import ChatRequest, CompletionRequest, Refused, parse
from adapterbot.bank.serve.refusals import no_such_route, refusal, stopping
from adapterbot.bank.serve.running import Base
from adapterbot.bank.serve.scheduler import Busy, Scheduler, Stopping
from adapterbot.bank.serve.shape import Shape
from adapterbot.bank.store import BankStore
from adapterbot.errors import InputError

BODY_LIMIT = 4 * 1024 * 1024
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Service:
    """What an application is made of.

    Attributes:
        name: of the base, before the colon in `model`.
        base: the loaded model, whose tokenizer is used here.
        store: whom there are, and whose keys; without one there are no keys to ask for.
        mixtures: the names of those that are on the model.
        choice: how tokens are chosen: temperature, top-p and seed to what the chooser takes.
        open_to_all: no API keys are asked for; whoever reaches the server reaches every tenant.
        limit: the most tokens of an answer.
    """

    name: str
    base: Base
    store: BankStore | None
    scheduler: Scheduler
    metrics: Metrics
    choice: Callable[[float, float, int], Any]
    mixtures: frozenset[str] = frozenset()
    open_to_all: bool = False
    limit: int = 1024


def application(service: Service) -> FastAPI:
    """The ASGI application; it starts and stops the scheduler."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        await asyncio.to_thread(service.scheduler.stop)

    # No generated documentation: it would load scripts from elsewhere.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    talk = _Conversation(service)
    app.add_api_route("/v1/chat/completions", _safe(service, talk.chat), methods=["POST"])
    app.add_api_route("/v1/completions", _safe(service, talk.complete), methods=["POST"])
    app.add_api_route("/v1/models", _safe(service, talk.models), methods=["GET"])
    # A name may hold anything; it is no label of a metric.
    one = _safe(service, talk.model, route="/v1/models/{model}")
    app.add_api_route("/v1/models/{model:path}", one, methods=["GET"])
    app.add_api_route("/healthz", _safe(service, talk.health), methods=["GET"])
    app.add_api_route("/metrics", _safe(service, talk.figures), methods=["GET"])
    app.add_exception_handler(HTTPException, no_such_route)
    return app


_Who = tuple[str | None, str | None]
Handler = Callable[[Request], Awaitable[Response]]


def _safe(service: Service, handle: Handler, route: str | None = None) -> Handler:
    """Errors as OpenAI's clients read them, and the status counted, under the path or `route`."""

    async def handled(request: Request) -> Response:
        try:
            response = await handle(request)
        except Refused as refused:
            response = JSONResponse(refused.body(), refused.status, refused.headers)
        counted = service.metrics.requests.labels(
            route or request.url.path, str(response.status_code)
        )
        counted.inc()
        return response

    return handled


class _Conversation:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: Request) -> Response:
        alive = self._service.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def figures(self, _: Request) -> Response:
        return Response(self._service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        """The base, the mixtures, and the tenant whom the key belongs to."""
        owner = self._owner(request)
        names = [self._service.name, *sorted(self._service.mixtures)]
        if owner is not None:
            names.append(f"{self._service.name}:{owner}")
        return JSONResponse({"object": "list", "data": list(map(_described, names))})

    async def model(self, request: Request) -> Response:
        """One of them by its name."""
        name = request.path_params["model"]
        self._who(name, self._owner(request))
        return JSONResponse(_described(name))

    async def chat(self, request: Request) -> Response:
        owner = self._owner(request)
        asked: ChatRequest = parse(ChatRequest, await _body(request))
        who = self._who(asked.model, owner)
        tokenizer = self._service.base.tokenizer
        if not tokenizer.chat_template:
            raise Refused(400, "this base model has no chat template", param="messages")
        turns = [{"role": turn.role, "content": turn.text} for turn in asked.messages]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # the template is a program of the model's own
            raise Refused(400, f"the chat template refuses this: {error}") from error
        # Not verbose: of a prompt that is too long it would warn; here it is refused.
        ids = tokenizer(str(text), add_special_tokens=False, verbose=False)["input_ids"]
        return await self._answer(request, asked, tuple(ids), who, "chat.completion")

    async def complete(self, request: Request) -> Response:
        owner = self._owner(request)
        asked: CompletionRequest = parse(CompletionRequest, await _body(request))
        who = self._who(asked.model, owner)
        ids = self._service.base.tokenizer(asked.text, verbose=False)["input_ids"]
        return await self._answer(request, asked, tuple(ids), who, "text_completion")

    # ------------------------------------------------------------ who asks, for whom

    def _owner(self, request: Request) -> str | None:
        """The tenant whose key it is; None where no key is asked for.

        Raises:
            Refused: 401.
        """
        store = self._service.store
        if self._service.open_to_all or store is None:
            return None
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key:
            # Only its hash is looked up, so how long that takes tells nothing of any key.
            owner = store.key_owner(hashlib.sha256(key.strip().encode()).digest())
            if owner is not None:
                return owner
        raise Refused(
            401,
            "the API key is missing or unknown",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _who(self, model: str, owner: str | None) -> _Who:
        """The tenant that `base:tenant` names, or the mixture of that name; neither is the base.

        Raises:
            Refused: 404, alike for a tenant who is not there and for one who is somebody else's.
        """
        name, store = self._service.name, self._service.store
        if model == name:
            return None, None
        if model in self._service.mixtures:
            return None, model
        unknown = Refused(
            404, f"there is no model {model[:200]!r}", code="model_not_found", param="model"
        )
        if store is None or not model.startswith(f"{name}:"):
            raise unknown
        tenant = model.removeprefix(f"{name}:")
        if not self._service.open_to_all and tenant != owner:
            raise unknown
        try:
            known = tenant in store
        except InputError:
            known = False
        if not known:
            raise unknown
        return tenant, None

    # ------------------------------------------------------------ answers

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prompt: tuple[int, ...],
        who: _Who,
        kind: str,
    ) -> Response:
        job, pieces = self._submitted(asked, prompt, who)
        shape = Shape(kind, asked.model, len(prompt))
        if asked.stream:
            # The first piece is waited for, so that what fails before it fails with a status.
            first = await self._piece(request, job, pieces)
            stream = self._stream(request, job, pieces, first, shape, usage=asked.usage_in_stream)
            return StreamingResponse(stream, media_type="text/event-stream")
        text = ""
        while True:
            piece = await self._piece(request, job, pieces)
            text += piece.text
            if piece.finish:
                return JSONResponse(shape.whole(text, piece.finish, len(job.answer)))

    def _submitted(
        self, asked: ChatRequest | CompletionRequest, prompt: tuple[int, ...], who: _Who
    ) -> tuple[Job, asyncio.Queue[Piece]]:
        base, limits = self._service.base, self._service.scheduler.limits
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
        wanted = asked.limit or self._service.limit
        tenant, mixture = who
        ask = Ask(
            prompt,
            tenant,
            min(wanted, room, self._service.limit),
            asked.stops,
            self._service.choice(asked.temperature, asked.top_p, seed),
            mixture,
        )
        job = Job(
            ask,
            lambda piece: _hand_over(loop, pieces, piece),
            lambda ids: str(base.tokenizer.decode(list(ids), skip_special_tokens=True)),
            base.eos,
            deadline=time.monotonic() + limits.seconds,
        )
        try:
            self._service.scheduler.submit(job)
        except Busy as error:
            raise Refused(
                429, str(error), code="rate_limit_exceeded", headers={"Retry-After": "1"}
            ) from error
        except Stopping as error:
            raise stopping() from error
        return job, pieces

    async def _piece(self, request: Request, job: Job, pieces: asyncio.Queue[Piece]) -> Piece:
        """The next piece; a client that has gone takes its job along.

        Raises:
            Refused: the job failed.
        """
        while True:
            try:
                piece = await asyncio.wait_for(pieces.get(), _POLL_SECONDS)
            except TimeoutError:
                if await request.is_disconnected():
                    job.cancel()
                    raise Refused(499, "the client has gone") from None
                continue
            except asyncio.CancelledError:
                job.cancel()
                raise
            if piece.error is not None:
                raise refusal(piece.error) from piece.error
            return piece

    async def _stream(
        self,
        request: Request,
        job: Job,
        pieces: asyncio.Queue[Piece],
        piece: Piece,
        shape: Shape,
        *,
        usage: bool,
    ) -> AsyncIterator[bytes]:
        try:
            yield _event(shape.start())
            while True:
                if piece.text:
                    yield _event(shape.part(piece.text, None))
                if piece.finish:
                    break
                piece = await self._piece(request, job, pieces)
            yield _event(shape.part("", piece.finish))
            if usage:
                yield _event(shape.usage_only(len(job.answer)))
            yield b"data: [DONE]\n\n"
        except Refused as refused:
            yield _event(refused.body())
        finally:
            job.cancel()  # which does nothing to one that has ended


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "adapterbot"}


async def _body(request: Request) -> bytes:
    whole = bytearray()
    async for part in request.stream():
        whole += part
        if len(whole) > BODY_LIMIT:
            raise Refused(413, f"the body is larger than {BODY_LIMIT:,} bytes")
    return bytes(whole)


def _hand_over(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Piece], piece: Piece) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(pieces.put_nowait, piece)


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
