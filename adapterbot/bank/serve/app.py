"""OpenAI's protocol over HTTP: its routes, who may ask, and for whom."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from adapterbot.bank.serve.answering import Asking, answer
from adapterbot.bank.serve.jobs import Who
from adapterbot.bank.serve.protocol import ChatRequest, CompletionRequest, Refused, parse
from adapterbot.bank.serve.refusals import gone, no_such_route, refusal, unreadable
from adapterbot.bank.serve.scheduler import Busy, TooSlow
from adapterbot.bank.serve.service import Service
from adapterbot.errors import AdapterbotError, InputError

_Read = TypeVar("_Read")

BODY_LIMIT = 4 * 1024 * 1024


def application(service: Service) -> FastAPI:
    """The ASGI application; it starts and stops the scheduler."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.scheduler.start()
        yield
        await asyncio.to_thread(service.scheduler.stop)

    # No generated documentation: it would load scripts from elsewhere. No redirects: they name the
    # host that the client named, and plain HTTP, to which the client would repeat its key.
    app = FastAPI(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    talk = _Conversation(service)
    app.add_api_route("/v1/chat/completions", _safe(service, talk.chat), methods=["POST"])
    app.add_api_route("/v1/completions", _safe(service, talk.complete), methods=["POST"])
    app.add_api_route("/v1/models", _safe(service, talk.models), methods=["GET"])
    # A name may hold anything; it is no label of a metric.
    one = _safe(service, talk.model, route="/v1/models/{model}")
    app.add_api_route("/v1/models/{model:path}", one, methods=["GET"])
    for path, state in (("/healthz", talk.health), ("/readyz", talk.readiness)):
        app.add_api_route(path, _safe(service, state), methods=["GET", "HEAD"])
    app.add_api_route("/metrics", _safe(service, talk.figures), methods=["GET"])
    app.add_exception_handler(HTTPException, no_such_route)
    return app


Handler = Callable[[Request], Awaitable[Response]]


def _safe(service: Service, handle: Handler, route: str | None = None) -> Handler:
    """Errors as OpenAI's clients read them, and the status counted, under the path or `route`."""

    async def handled(request: Request) -> Response:
        try:
            response = await handle(request)
        except (Refused, AdapterbotError) as error:
            refused = error if isinstance(error, Refused) else unreadable(error)
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
        # One at a time: a tokenizer is made for one thread, and the model's wants its share. One of
        # each account in the queue for that, so that nobody waits for all that somebody else sent.
        self._reading = asyncio.Lock()
        self._turns = WeakValueDictionary[Who, asyncio.Lock]()
        self._unread: Counter[Who | None] = Counter()

    async def health(self, _: Request) -> Response:
        alive = self._service.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def readiness(self, _: Request) -> Response:
        """Whether requests should come here, as far as the bank is concerned, too. Why not is in
        the log: it names files."""
        presence = self._service.presence
        lacks = presence is not None and await asyncio.to_thread(presence.lack) is not None
        ready = self._service.scheduler.alive and not lacks
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

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
        asking = await self._asking(ChatRequest, request)
        tokenizer = self._service.base.tokenizer
        if not tokenizer.chat_template:
            raise Refused(400, "this base model has no chat template", param="messages")
        assert isinstance(asking.asked, ChatRequest)  # noqa: S101 for the type checker
        turns = [message.turn for message in asking.asked.messages]

        def read() -> tuple[int, ...]:
            try:
                text = tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # the template is a program of the model's own
                raise Refused(400, f"the chat template refuses this: {error}") from error
            # Not verbose: of a prompt that is too long it would warn; here it is refused.
            return tuple(tokenizer(str(text), add_special_tokens=False, verbose=False)["input_ids"])

        return await answer(self._service, asking, await self._aside(asking, read))

    async def complete(self, request: Request) -> Response:
        asking = await self._asking(CompletionRequest, request)
        assert isinstance(asking.asked, CompletionRequest)  # noqa: S101 for the type checker
        read = partial(self._service.base.tokenizer, asking.asked.text, verbose=False)
        ids = tuple((await self._aside(asking, read))["input_ids"])
        return await answer(self._service, asking, ids)

    async def _asking(
        self, kind: type[ChatRequest] | type[CompletionRequest], request: Request
    ) -> Asking:
        """What a request asks for.

        Raises:
            Refused: it may not, or it is none.
        """
        owner = self._owner(request)
        limits = self._service.scheduler.limits
        # Before a body is read only the key says whose it is.
        most = limits.waiting if owner is None else limits.per_tenant
        with self._place(None if owner is None else (owner, None), most):
            asked = parse(kind, await _body(request))
        who, row = self._who(asked.model, owner)
        # Anew: while the body came, the key may have been revoked and the name given to another.
        if self._owner(request) != owner:
            raise _unknown_key()
        return Asking(
            request=request,
            asked=asked,
            who=who,
            row=row,
            account=who if owner is None else (owner, None),
            deadline=time.monotonic() + limits.seconds,
        )

    async def _aside(self, asking: Asking, read: Callable[[], _Read]) -> _Read:
        """A prompt as tokens while others are written to: one of megabytes takes seconds.

        Raises:
            Refused: 429, as many prompts wait for that, of all or of one account, as jobs may wait;
                504, its time was up before its turn came; or its client was gone by then.
        """
        account = asking.account
        turn = self._turns.setdefault(account, asyncio.Lock())
        with self._place(account, self._service.scheduler.limits.per_tenant):
            async with AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(asking.deadline - time.monotonic()):
                        for lock in (turn, self._reading):
                            await held.enter_async_context(lock)
                except TimeoutError as error:
                    raise refusal(TooSlow()) from error
                if await asking.request.is_disconnected():
                    raise gone()
                return await asyncio.to_thread(read)

    @contextmanager
    def _place(self, account: Who | None, most: int) -> Iterator[None]:
        """One of the places, `most` of them on one account, of prompts that come or are to be read.

        Raises:
            Refused: 429, there is none.
        """
        waiting = self._service.scheduler.limits.waiting
        if self._unread.total() >= waiting or self._unread[account] >= most:
            raise refusal(Busy("too many prompts wait to be read"))
        self._unread[account] += 1
        try:
            yield
        finally:
            self._unread -= Counter([account])  # none of whom nothing waits is kept

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
        raise _unknown_key()

    def _who(self, model: str, owner: str | None) -> tuple[Who, bytes | None]:
        """The tenant that `base:tenant` names, and what tells its row from any other; or the
        mixture of that name; neither is the base.

        Raises:
            Refused: 404, alike for a tenant who is not there and for one who is somebody else's.
        """
        name, store = self._service.name, self._service.store
        if model == name:
            return (None, None), None
        if model in self._service.mixtures:
            return (None, model), None
        unknown = Refused(
            404, f"there is no model {model[:200]!r}", code="model_not_found", param="model"
        )
        if store is None or not model.startswith(f"{name}:"):
            raise unknown
        tenant = model.removeprefix(f"{name}:")
        if not self._service.open_to_all and tenant != owner:
            raise unknown
        try:
            (row,) = store.digests([tenant])
        except InputError:  # nobody can be called that
            row = None
        if row is None:
            raise unknown
        return (tenant, None), row


def _unknown_key() -> Refused:
    return Refused(
        401,
        "the API key is missing or unknown",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "adapterbot"}


async def _body(request: Request) -> bytes:
    whole = bytearray()
    try:
        async for part in request.stream():
            whole += part
            if len(whole) > BODY_LIMIT:
                raise Refused(413, f"the body is larger than {BODY_LIMIT:,} bytes")
    except ClientDisconnect as error:
        raise gone() from error
    return bytes(whole)
