"""OpenAI's protocol over HTTP: its routes, who may ask, and for whom."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from adapterbot.bank.serve.answering import answer
from adapterbot.bank.serve.jobs import Who
from adapterbot.bank.serve.protocol import ChatRequest, CompletionRequest, Refused, parse
from adapterbot.bank.serve.refusals import no_such_route, refusal
from adapterbot.bank.serve.scheduler import Busy
from adapterbot.bank.serve.service import Service
from adapterbot.errors import InputError

_Read = TypeVar("_Read")

BODY_LIMIT = 4 * 1024 * 1024


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
        # One at a time: a tokenizer is made for one thread, and the model's wants its share.
        self._reading = asyncio.Lock()
        self._unread: Counter[Who] = Counter()

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

        def read() -> tuple[int, ...]:
            try:
                text = tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # the template is a program of the model's own
                raise Refused(400, f"the chat template refuses this: {error}") from error
            # Not verbose: of a prompt that is too long it would warn; here it is refused.
            return tuple(tokenizer(str(text), add_special_tokens=False, verbose=False)["input_ids"])

        return await answer(self._service, request, asked, await self._aside(who, read), who)

    async def complete(self, request: Request) -> Response:
        owner = self._owner(request)
        asked: CompletionRequest = parse(CompletionRequest, await _body(request))
        who = self._who(asked.model, owner)
        tokenizer = self._service.base.tokenizer
        read = partial(tokenizer, asked.text, verbose=False)
        ids = tuple((await self._aside(who, read))["input_ids"])
        return await answer(self._service, request, asked, ids, who)

    async def _aside(self, who: Who, read: Callable[[], _Read]) -> _Read:
        """A prompt as tokens while others are written to: one of megabytes takes seconds.

        Raises:
            Refused: 429, as many prompts wait for that, of all or of `who`, as jobs may wait.
        """
        limits = self._service.scheduler.limits
        if self._unread.total() >= limits.waiting or self._unread[who] >= limits.per_tenant:
            raise refusal(Busy("too many prompts wait to be read"))
        self._unread[who] += 1
        try:
            async with self._reading:
                return await asyncio.to_thread(read)
        finally:
            self._unread -= Counter([who])  # none of whom nothing waits is kept

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

    def _who(self, model: str, owner: str | None) -> Who:
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


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "adapterbot"}


async def _body(request: Request) -> bytes:
    whole = bytearray()
    async for part in request.stream():
        whole += part
        if len(whole) > BODY_LIMIT:
            raise Refused(413, f"the body is larger than {BODY_LIMIT:,} bytes")
    return bytes(whole)
