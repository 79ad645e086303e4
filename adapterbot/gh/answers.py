"""What an answer of GitHub that is not a success means: wait and ask again, or give up and say why.

Nothing here sends a request; `client` asks, and decides what may be asked twice.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from github import GithubException

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError
from adapterbot.gh.transport import Renamed, StrangeAnswer
from adapterbot.retry_after import retry_after

# Of requests' exceptions only those that say that the network failed; the others are mistakes in
# the request. PyGithub lets the JSON decoder's error through when a body is cut short.
FAILURES = (
    GithubException,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    json.JSONDecodeError,
    StrangeAnswer,
    Renamed,
)
# GitHub: "wait at least one minute" when a secondary limit comes without Retry-After.
_SECONDARY_WAIT = 60.0
# What GitHub says to an Actions or App token, a fine-grained and a classic personal one.
_NOT_ALLOWED = ("not accessible by", "must authenticate via a github app", "must have admin rights")


class Setback(GitHubFailure):
    """No answer, or "not now". It may pass.

    `wait` is how many seconds GitHub asks for; `nothing_done` is its word that it did not act.
    """

    def __init__(self, message: str, *, fix: str, wait: float = 0.0, nothing_done: bool) -> None:
        super().__init__(message, fix=fix)
        self.wait = wait
        self.nothing_done = nothing_done


class NotKnown(InputError):
    """GitHub does not know the token, or believes it no longer."""


class NotPermitted(InputError):
    """The token is good, and may not do this."""


class NotFound(InputError):
    """There is no such thing, or the token may not see it."""


class NotAccepted(GitHubFailure):
    """GitHub understood the request and will not have what it says (status 422)."""


def meaning(error: Exception, doing: str, attempt: int, permission: str | None) -> AdapterbotError:
    """The error as one of ours: a `Setback`, or a refusal that no patience will change.

    Args:
        error: one of `FAILURES`.
        doing: a phrase such as "posting the comment on octo/adapters#7".
        attempt: how often this was tried, counted from 1.
        permission: the line of a workflow's `permissions:` that the request needs.
    """
    what = type(error).__name__
    if isinstance(error, StrangeAnswer):
        return GitHubFailure(
            f"{error.host} does not answer as GitHub does while {doing}: {error.what}",
            fix="check GITHUB_API_URL (an Enterprise Server's ends in /api/v3), and the proxy or "
            "sign-in page on the way",
        )
    if isinstance(error, Renamed):
        return InputError(
            f"GitHub was asked by a name that is no longer in use while {doing}",
            fix="name the repository as it is called now",
        )
    if _untrusted(error):
        return InputError(
            f"the certificate of GitHub's server is not trusted while {doing}",
            fix="set REQUESTS_CA_BUNDLE to a file with the certificate of your authority",
        )
    if isinstance(error, GithubException):
        limited = _limited_for(error)
        if limited is not None:
            return Setback(
                f"GitHub's rate limit was reached while {doing}, and asks to wait {limited:.0f} s",
                fix="run the job again later, or give it a token of its own",
                wait=limited,
                nothing_done=True,
            )
        if error.status < 500:
            return _refusal(error, doing, permission)
        what = f"status {error.status}"
    tries = "once" if attempt == 1 else f"{attempt} times"
    ours = isinstance(error, requests.exceptions.ProxyError)
    return Setback(
        f"GitHub did not answer while {doing}: {what}, tried {tries}",
        fix="see to the proxy that HTTPS_PROXY or HTTP_PROXY names, or go around it by NO_PROXY"
        if ours
        else "run the job again; https://www.githubstatus.com says whether GitHub has trouble",
        nothing_done=False,
    )


def refused(errors: Sequence[Mapping[str, Any]], headers: dict[str, Any]) -> GithubException:
    """What GraphQL refused with status 200, as REST would have refused it.

    A rate limit is known by its type or its words: GitHub sends either of two types, and the
    headers may still count some requests left (octokit/plugin-throttling.js#632 and #824).
    """
    said = " ".join(str(error.get("message", "")) for error in errors[:3])
    kinds = {error.get("type") for error in errors}
    status = 400
    if not kinds.isdisjoint({"RATE_LIMITED", "RATE_LIMIT"}) or "rate limit" in said.lower():
        status = 429
    elif "FORBIDDEN" in kinds:
        status = 403
    elif "NOT_FOUND" in kinds:
        status = 404
    elif said.startswith("Something went wrong while executing your query"):
        status = 502  # its own words for a time-out
    return GithubException(status, {"message": said}, headers)


def _untrusted(error: BaseException | None) -> bool:
    """Whether a certificate was refused, which requests and urllib3 wrap twice."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        inner = [getattr(error, "reason", None), *error.args[:1]]
        error = next((one for one in inner if isinstance(one, BaseException)), None)
    return error is not None


def _headers(error: GithubException) -> dict[str, str]:
    return {name.lower(): value for name, value in (error.headers or {}).items()}


def _limited_for(error: GithubException) -> float | None:
    """Seconds that a rate limit asks us to wait; None when this is no rate limit."""
    if error.status not in {403, 429}:
        return None
    headers = _headers(error)
    if "retry-after" in headers:
        asked = retry_after(headers["retry-after"])
        return _SECONDARY_WAIT if asked is None else asked
    if headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        # One second more, since the reset can fall anywhere within its second.
        return max(0.0, float(reset) - time.time() + 1) if reset.isdecimal() else _SECONDARY_WAIT
    if error.status == 429 or "rate limit" in _message(error).lower():
        return _SECONDARY_WAIT
    return None


def _message(error: GithubException) -> str:
    data = error.data if isinstance(error.data, dict) else {}
    said = [str(data.get("message") or error.message or "no reason given")]
    listed = data.get("errors")
    for one in listed[:3] if isinstance(listed, list) else ():
        # "Validation Failed" alone helps nobody.
        named = one if isinstance(one, dict) else {"message": one}
        where = (named.get(part) for part in ("resource", "field", "code"))
        said.append(str(named.get("message") or " ".join(str(w) for w in where if w)))
    return " ".join(": ".join(filter(None, said)).split())[:500]


def _refusal(error: GithubException, doing: str, permission: str | None) -> AdapterbotError:
    """What GitHub's "no" means for the person who has to act."""
    message = _message(error)
    if error.status == 401:
        return NotKnown(
            f"GitHub refused the token while {doing}: {message}",
            fix="check that the token is set, complete and not expired",
        )
    if error.status == 403 and any(words in message.lower() for words in _NOT_ALLOWED):
        # GitHub's own word on it ("pull_requests=write") for tokens that no workflow made.
        accepted = _headers(error).get("x-accepted-github-permissions")
        named = f"`permissions: {permission}`" if permission else "the permission it names"
        return NotPermitted(
            f"the token lacks a permission while {doing}: {message}"
            + (f" (GitHub accepts {accepted})" if accepted else ""),
            fix=f"add {named} to the job, or to the App that it acts as; a pull request from a "
            "fork gets a read-only token, so publish its report from a workflow_run workflow",
        )
    if error.status == 403 and "saml" in message.lower():
        return NotPermitted(
            f"the organization wants a token that is authorized for it, while {doing}: {message}",
            fix="authorize it in the token's settings, under Configure SSO",
        )
    if error.status == 404:
        return NotFound(
            f"GitHub found nothing while {doing}: {message}",
            fix="check the repository and the number, and that the token may see them",
        )
    kind = NotAccepted if error.status == 422 else GitHubFailure
    return kind(f"GitHub refused while {doing}: {message} (status {error.status})")
