"""A PyGithub client whose patience and whose errors are our own.

PyGithub's default retry repeats a POST after a 502 or a time-out, which posts a comment twice,
and never repeats a PATCH, which loses an update. Here the transport repeats nothing, and each
call says which of two kinds it is: `Client.repeat` for what may safely be done twice (GET, PATCH
with a whole body, DELETE), `Client.write_once` for what may not (POST).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TypeVar
from urllib.parse import urlsplit

import github
import requests
from github import GithubException

from adapterbot.errors import AdapterbotError, GitHubFailure, InputError

T = TypeVar("T")

# Of requests' exceptions only those that say that the network failed; the others are mistakes in
# the request. PyGithub lets the JSON decoder's error through when a body is cut short.
_FAILURES = (
    GithubException,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    json.JSONDecodeError,
)
# GitHub: "wait at least one minute" when a secondary limit comes without Retry-After.
_SECONDARY_WAIT = 60.0
# Tokens of App installations, the one of GitHub Actions included, begin like this.
_INSTALLATION_PREFIX = "ghs_"
_BOT = "[bot]"


class UncertainWrite(GitHubFailure):
    """A write that is not repeatable got no clear answer: it may or may not have happened."""


@dataclass(frozen=True)
class Patience:
    """How often and how long to try. Waits are in seconds.

    A rate limit that asks for more than `longest_wait` is an error at once: a GPU runner that
    sleeps for an hour costs more than a failed job.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 120.0
    sleep: Callable[[float], None] = time.sleep

    def backoff(self, attempt: int) -> float:
        """Doubling, with jitter so that the legs of a matrix do not come back in step."""
        wait: float = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1))
        return wait * random.uniform(0.5, 1)  # noqa: S311


@dataclass(frozen=True)
class Client:
    """PyGithub and the patience to use it with. Every call goes through one of the two methods.

    `doing` is a phrase such as "posting the comment on octo/adapters#7"; `permission` is the line
    of a workflow's `permissions:` that the call needs. `installation` says that the token belongs
    to an App, as the one of GitHub Actions does, and so speaks for a bot.
    """

    api: github.Github = field(repr=False)
    patience: Patience = Patience()
    installation: bool = False

    def repeat(self, doing: str, call: Callable[[], T], *, permission: str | None = None) -> T:
        """Call until it works: for calls that may happen twice without harm.

        Raises:
            InputError: the token or the repository is wrong, or a permission is missing.
            GitHubFailure: GitHub refused, or did not answer in all attempts.
        """
        return self._persist(doing, call, permission, repeatable=True)

    def write_once(self, doing: str, call: Callable[[], T], *, permission: str | None = None) -> T:
        """Call again only after a rate limit, which GitHub answers instead of writing.

        Raises:
            UncertainWrite: no clear answer; look whether it happened before trying again.
            InputError: the token or the repository is wrong, or a permission is missing.
            GitHubFailure: GitHub refused.
        """
        return self._persist(doing, call, permission, repeatable=False)

    @cached_property
    def login(self) -> str:
        """Who the token speaks for, as REST spells it ("github-actions[bot]", "alice").

        REST's `GET /user` refuses an Actions or App token; GraphQL's viewer knows them all, but
        may leave out the "[bot]", and a person may own the bare name.

        Raises:
            InputError, GitHubFailure: as `repeat`.
        """
        query = "query { viewer { login } }"
        _, reply = self.repeat(  # a query sent as POST: reading twice is harmless
            "asking who the token belongs to",
            lambda: self.api.requester.graphql_query(query, {}),
        )
        login = str(reply["data"]["viewer"]["login"])
        return f"{login.removesuffix(_BOT)}{_BOT}" if self.installation else login

    def _persist(
        self, doing: str, call: Callable[[], T], permission: str | None, *, repeatable: bool
    ) -> T:
        patience = self.patience
        attempt = 0
        while True:
            attempt += 1
            try:
                return call()
            except _FAILURES as error:
                if isinstance(error, GithubException) and not _may_pass(error):
                    raise _refusal(error, doing, permission) from error
                setback = _setback(error, doing, attempt)
                if not (repeatable or setback.nothing_done):
                    raise UncertainWrite(setback.message, fix=setback.fix) from error
                if attempt == patience.attempts or setback.wait > patience.longest_wait:
                    raise GitHubFailure(setback.message, fix=setback.fix) from error
                patience.sleep(setback.wait + patience.backoff(attempt))


def connect(
    token: str, api_url: str, *, timeout: int = 20, patience: Patience | None = None
) -> Client:
    """A client for github.com or an Enterprise Server. Sends nothing yet.

    Args:
        token: an Actions, App installation or personal access token.
        api_url: what GITHUB_API_URL holds ("https://api.github.com").
        timeout: seconds to wait for a connection, and for each read.

    Raises:
        InputError: no token, or not an http(s) URL.
    """
    if not token.strip():
        raise InputError(
            "no GitHub token", fix="pass `token: ${{ github.token }}` or set GITHUB_TOKEN"
        )
    address = urlsplit(api_url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise InputError(
            f"{api_url!r} is not an API address", fix="set GITHUB_API_URL, or leave it unset"
        )
    api = github.Github(
        auth=github.Auth.Token(token.strip()),
        base_url=api_url.rstrip("/"),
        timeout=timeout,
        per_page=100,
        lazy=True,
        # The transport repeats nothing: `Client` does, and knows what it repeats.
        retry=0,
        # PyGithub sleeps 0.25 s before each request and 1 s between writes. We send a handful,
        # and a secondary limit is honoured when it comes.
        seconds_between_requests=None,
        seconds_between_writes=None,
        user_agent="adapterbot",
    )
    installation = token.strip().startswith(_INSTALLATION_PREFIX)
    return Client(api, patience or Patience(), installation)


@dataclass(frozen=True)
class _Setback:
    """A failure that may pass. `nothing_done` is GitHub's word that it did not act."""

    message: str
    fix: str
    wait: float = 0.0
    nothing_done: bool = False


def _may_pass(error: GithubException) -> bool:
    """Whether GitHub may answer otherwise in a while."""
    return error.status >= 500 or _limited_for(error) is not None


def _setback(error: Exception, doing: str, attempt: int) -> _Setback:
    """What went wrong, and what to wait for."""
    what = type(error).__name__
    if isinstance(error, GithubException):
        limited = _limited_for(error)
        if limited is not None:
            return _Setback(
                f"GitHub's rate limit was reached while {doing}, and asks to wait {limited:.0f} s",
                fix="run the job again later, or give it a token of its own",
                wait=limited,
                nothing_done=True,
            )
        what = f"status {error.status}"
    tries = "once" if attempt == 1 else f"{attempt} times"
    return _Setback(
        f"GitHub did not answer while {doing}: {what}, tried {tries}",
        fix="run the job again; https://www.githubstatus.com says whether GitHub has trouble",
    )


def _limited_for(error: GithubException) -> float | None:
    """Seconds that a rate limit asks us to wait; None when this is no rate limit."""
    if error.status not in {403, 429}:
        return None
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    asked = headers.get("retry-after")
    if asked is not None:
        return _seconds(asked)
    if headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        # One second more, since the reset can fall anywhere within its second.
        return max(0.0, float(reset) - time.time() + 1) if reset.isdigit() else _SECONDARY_WAIT
    if error.status == 429 or "rate limit" in _message(error).lower():
        return _SECONDARY_WAIT
    return None


def _seconds(retry_after: str) -> float:
    """Retry-After as RFC 9110 has it: seconds, or a date."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return _SECONDARY_WAIT


def _message(error: GithubException) -> str:
    data = error.data
    text = data.get("message") if isinstance(data, dict) else None
    return " ".join(str(text or error.message or "no reason given").split())[:500]


def _refusal(error: GithubException, doing: str, permission: str | None) -> AdapterbotError:
    """What GitHub's "no" means for the person who has to act."""
    message = _message(error)
    if error.status == 401:
        return InputError(
            f"GitHub refused the token while {doing}: {message}",
            fix="check that the token is set, complete and not expired",
        )
    if error.status == 403 and "not accessible by" in message:
        line = f"`permissions: {permission}`" if permission else "the permission it names"
        return InputError(
            f"the token lacks a permission while {doing}: {message}",
            fix=f"add {line} to the job; a pull request from a fork gets a read-only token, so "
            "publish its report from a workflow_run workflow",
        )
    if error.status == 404:
        return InputError(
            f"GitHub found nothing while {doing}: {message}",
            fix="check the repository and the number, and that the token may see them",
        )
    return GitHubFailure(f"GitHub refused while {doing}: {message} (status {error.status})")
