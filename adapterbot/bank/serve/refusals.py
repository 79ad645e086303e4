"""What is answered instead of an answer: errors as OpenAI's clients read them."""

from __future__ import annotations

import logging

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from adapterbot.bank.serve.protocol import Refused
from adapterbot.bank.serve.scheduler import Busy, Changed, Stopping, TooSlow
from adapterbot.errors import AdapterbotError, InputError

_LOG = logging.getLogger(__name__)

_ROUTES = "POST /v1/chat/completions, POST /v1/completions and GET /v1/models"


async def no_such_route(request: Request, error: Exception) -> Response:
    """What is not served, as OpenAI's clients read it."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    asked = f"{request.method} {request.url.path}"[:200]
    refused = Refused(
        status, f"{asked} is not supported; there are {_ROUTES}", code="not_supported"
    )
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(refused.body(), status, headers)


def refusal(error: Exception) -> Refused:
    """Why a job ended without its answer; of a row that is damaged the log is told the rest."""
    if isinstance(error, TooSlow):
        return Refused(504, "the request took too long", code="timeout")
    if isinstance(error, Changed):
        return Refused(409, "this model has changed meanwhile; ask again", code="model_changed")
    if isinstance(error, Stopping):
        return stopping()
    if isinstance(error, Busy):
        return Refused(429, str(error), code="rate_limit_exceeded", headers={"Retry-After": "1"})
    if isinstance(error, InputError):
        return Refused(
            404, "there is no such model any more", code="model_not_found", param="model"
        )
    if isinstance(error, AdapterbotError):
        _LOG.error("%s", error)
        return Refused(500, "this tenant's vectors cannot be used", code="tenant_damaged")
    return Refused(500, "the model failed", code="internal_error")


def stopping() -> Refused:
    """What a request gets that comes, or waits, while the server stops."""
    return Refused(503, "the server is going down", code="stopping", headers={"Retry-After": "5"})


def gone() -> Refused:
    """What nobody reads: the client has hung up."""
    return Refused(499, "the client has gone")


def unreadable(error: AdapterbotError) -> Refused:
    """What a client is told of a bank that is damaged or missing; the log is told the rest."""
    _LOG.error("%s", error)
    return Refused(500, "the bank cannot be read", code="bank_damaged")
