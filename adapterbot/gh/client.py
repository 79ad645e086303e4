"""A PyGithub client whose patience and whose errors are our own.

PyGithub's default retry repeats a POST after a 502 or a time-out, which posts a comment twice,
and never repeats a PATCH, which loses an update. Here the transport repeats nothing, and each
call says which of three kinds it is: `Client.repeat` for what may safely be done twice (GET, PATCH
with a whole body, DELETE), `Client.create` for what may not (POST), and `Client.once` for callers
that try again in a way of their own.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import github

from adapterbot.errors import InputError
from adapterbot.gh.answers import FAILURES, Setback, meaning, refused
from adapterbot.gh.transport import StrangeAnswer, judge_answers

T = TypeVar("T")

# Tokens of App installations, the one of GitHub Actions included, begin like this.
_INSTALLATION_PREFIX = "ghs_"
_BOT = "[bot]"


@dataclass(frozen=True)
class Patience:
    """How often and how long to try. Waits are in seconds.

    A rate limit that asks for more than `longest_wait` is an error at once: a GPU runner that
    sleeps for an hour costs more than a failed job. `settle` is how long a write of another job
    that was on its way when we wrote may take to arrive.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 120.0
    settle: float = 1.0
    sleep: Callable[[float], None] = time.sleep

    def backoff(self, attempt: int) -> float:
        """Doubling, with jitter so that the legs of a matrix do not come back in step."""
        wait: float = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1))
        return wait * random.uniform(0.5, 1)  # noqa: S311

    def again(self, setback: Setback, attempt: int) -> bool:
        """Wait before the next attempt; False, at once, where this was the last one or the wait
        would be too long."""
        if attempt >= self.attempts or setback.wait > self.longest_wait:
            return False
        self.sleep(setback.wait + self.backoff(attempt))
        return True


# For a job that is being ended: the runner kills it ten seconds after it asked.
HURRIED = Patience(attempts=3, first_wait=0.2, longest_wait=2.0, settle=0.0)


@dataclass(frozen=True)
class Client:
    """PyGithub and the patience to use it with. Every call goes through one of its methods.

    `doing` is a phrase such as "posting the comment on octo/adapters#7"; `permission` is the line
    of a workflow's `permissions:` that the call needs. `installation` says that the token belongs
    to an App, as the one of GitHub Actions does, and so speaks for a bot.
    """

    api: github.Github = field(repr=False)
    patience: Patience = Patience()
    installation: bool = False
    graphql_url: str = ""

    def once(
        self,
        doing: str,
        call: Callable[[], T],
        *,
        permission: str | None = None,
        attempt: int = 1,
    ) -> T:
        """Call once.

        Raises:
            Setback: no clear answer, or a rate limit.
            NotPermitted: the token may not do this.
            InputError: the token or the repository is wrong.
            GitHubFailure: GitHub refused.
        """
        try:
            return call()
        except FAILURES as error:
            raise meaning(error, doing, attempt, permission) from error

    def repeat(self, doing: str, call: Callable[[], T], *, permission: str | None = None) -> T:
        """Call until it works: for calls that may happen twice without harm.

        Raises:
            InputError: the token or the repository is wrong, or a permission is missing.
            GitHubFailure: GitHub refused, or did not answer in all attempts.
        """
        return self.create(doing, call, lambda: None, permission=permission)

    def create(
        self,
        doing: str,
        call: Callable[[], T],
        made: Callable[[], T | None],
        *,
        permission: str | None = None,
    ) -> T:
        """Call until it works, and never where an earlier call has done it already.

        Args:
            made: looks for what a call whose answer was lost may have made. Not asked after a rate
                limit, which GitHub answers instead of writing.

        Raises:
            InputError, GitHubFailure: as `repeat`.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return self.once(doing, call, permission=permission, attempt=attempt)
            except Setback as setback:
                again = self.patience.again(setback, attempt)
                # After the last one, too: what GitHub made must not be reported as failed.
                if not setback.nothing_done and (found := made()) is not None:
                    return found
                if not again:
                    raise

    def query(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The `data` of a GraphQL query or mutation; sent once, through one of the others.

        Raises:
            GithubException: GitHub refused, with the status that REST would have refused it with.
            StrangeAnswer: what answers is not GitHub.
        """
        given = {"query": query, "variables": dict(variables)}
        url = self._graphql_url
        headers, answer = self.api.requester.requestJsonAndCheck("POST", url, input=given)
        if answer.get("errors"):
            raise refused(answer["errors"], headers)
        data: dict[str, Any] | None = answer.get("data")
        if data is None:
            raise StrangeAnswer(urlsplit(url).netloc, "JSON that is no answer to a query")
        return data

    def token(self) -> str:
        """The token of this moment, which git takes.

        Raises:
            InputError, GitHubFailure: as `repeat`; an App's may have to be asked for.
        """
        auth = self.api.requester.auth
        assert auth is not None  # noqa: S101 `connect` gives it one
        return self.repeat("asking for a token", lambda: auth.token)

    @property
    def _graphql_url(self) -> str:
        return self.graphql_url or self.api.requester.graphql_url

    @cached_property
    def login(self) -> str:
        """Who the token speaks for, as REST spells it ("github-actions[bot]", "alice").

        REST's `GET /user` refuses an Actions or App token; GraphQL's viewer knows them all, but
        may leave out the "[bot]", and a person may own the bare name.

        Raises:
            InputError, GitHubFailure: as `repeat`.
        """
        login = self.repeat("asking who the token belongs to", self._viewer)
        return f"{login.removesuffix(_BOT)}{_BOT}" if self.installation else login

    def _viewer(self) -> str:
        viewer = self.query("query { viewer { login } }", {}).get("viewer")
        if viewer is None:
            raise StrangeAnswer(urlsplit(self._graphql_url).netloc, "JSON without a viewer")
        return str(viewer["login"])


class _Renewed(github.Auth.Auth):
    """A token that may be another one at the next request."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask

    @property
    def token_type(self) -> str:
        return "token"

    @property
    def token(self) -> str:
        return self._ask()


def connect(
    token: str | github.Auth.Auth | Callable[[], str],
    api_url: str,
    *,
    graphql_url: str = "",
    timeout: int = 20,
    patience: Patience | None = None,
) -> Client:
    """A client for github.com or an Enterprise Server. Sends nothing yet.

    Args:
        token: an Actions, App installation or personal access token; or who to ask for an App's
            before each request, since it lasts an hour; or what an App itself signed.
        api_url: what GITHUB_API_URL holds ("https://api.github.com").
        graphql_url: what GITHUB_GRAPHQL_URL holds; derived from `api_url` when empty.
        timeout: seconds to wait for a connection, and for each read.

    Raises:
        InputError: no token, one that cannot be sent, or not an http(s) URL.
    """
    if isinstance(token, github.Auth.Auth):
        auth = token
    else:
        auth = _constant(token) if isinstance(token, str) else _Renewed(token)
    address = _address("GITHUB_API_URL", api_url)
    # The token goes to both: a second host would be told the first one's secret.
    if graphql_url and _address("GITHUB_GRAPHQL_URL", graphql_url) != address:
        raise InputError(
            f"{graphql_url!r} is not on the host of {api_url!r}",
            file="GITHUB_GRAPHQL_URL",
            fix="set both for the same server, or leave it unset",
        )
    judge_answers()
    api = github.Github(
        auth=auth,
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
    installation = not isinstance(token, str) or token.strip().startswith(_INSTALLATION_PREFIX)
    return Client(api, patience or Patience(), installation, graphql_url)


def _constant(token: str) -> github.Auth.Token:
    """A token that stays."""
    token = token.strip()
    if not token:
        raise InputError(
            "no GitHub token",
            fix="set GITHUB_TOKEN, or ADAPTERBOT_APP_ID and ADAPTERBOT_APP_KEY; of the action, "
            "pass `token: ${{ github.token }}`, or `app-id` and `app-key`",
        )
    # What no header can hold, requests would quote in its error.
    if not re.fullmatch("[!-~]+", token):
        raise InputError(
            "the GitHub token holds a space or a character that no token has",
            fix="copy it anew, without line ends",
        )
    return github.Auth.Token(token)


def _address(variable: str, url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port."""
    try:
        parts = urlsplit(url)
        found = parts.scheme, parts.hostname, parts.port
    except ValueError:
        found = "", None, None
    scheme, host, port = found
    if scheme not in {"http", "https"} or not host:
        raise InputError(f"{url!r} is not an API address", fix=f"set {variable}, or leave it unset")
    return scheme, host, port
