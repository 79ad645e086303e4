"""A GitHub App on one repository: its id and private key become a token, a new one every hour."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from github.Auth import AppAuthToken

from adapterbot.errors import AdapterbotError, InputError
from adapterbot.gh.answers import NotFound, NotKnown, Setback
from adapterbot.gh.client import Client, connect
from adapterbot.gh.purpose import APP_ID, APP_KEY, Purpose
from adapterbot.gh.workflow import mask

# What an App signs may be issued in nobody's future, and may hold for ten minutes at most. Half
# of them on either side is what a clock may be wrong by.
_MARGIN = timedelta(minutes=5)
_NEVER = datetime.min.replace(tzinfo=UTC)
# A push may take a while, and clocks differ.
_RENEWED_BEFORE = timedelta(minutes=10)
_ASKED_AGAIN = timedelta(seconds=30)


@dataclass
class Installation:
    """An App where it is installed.

    Attributes:
        app: its id, or its client id.
        key: its private key, PEM.
        repository: "owner/name".
        purpose: what its token is for.
        masked: whether the runner is to star the token out: it does not know it yet.
    """

    app: str
    key: str = field(repr=False)
    repository: str
    api_url: str
    purpose: Purpose
    masked: bool
    _token: str = field(default="", repr=False)
    _until: datetime = field(default=_NEVER, repr=False)
    _ends: datetime = field(default=_NEVER, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def token(self, timeout: int) -> str:
        """The token of this moment. GitHub is asked once for a new one, so that whoever needs it
        decides how often to try.

        Args:
            timeout: seconds to wait for each answer.

        Raises:
            InputError: the key is none, or the App is not installed there, or may not enough.
            Setback: GitHub did not answer, and there is no token that still holds.
            GitHubFailure: GitHub refused.
        """
        with self._lock:
            if (now := datetime.now(UTC)) >= self._until:
                try:
                    self._renew(timeout)
                except Setback:
                    if now >= self._ends:
                        raise
                    self._until = now + _ASKED_AGAIN  # the one that there is still holds
            return self._token

    def _renew(self, timeout: int) -> None:
        signed = _signed(self.app, self.key)
        client = connect(AppAuthToken(signed), self.api_url, timeout=timeout)
        try:
            found = _send(client, self._doing, "GET", f"/repos/{self.repository}/installation")
        except (NotFound, NotKnown) as error:
            raise self._unknown(error) from error
        # A token that got lost on the way expires by itself, so asking again does no harm.
        path = f"/app/installations/{found['id']}/access_tokens"
        name = self.repository.partition("/")[2]
        asked = {"repositories": [name], "permissions": self._permissions(found)}
        given = _send(client, self._doing, "POST", path, asked)
        if self.masked:
            sys.stderr.write(f"{mask(given['token'])}\n")
        self._ends = datetime.fromisoformat(given["expires_at"])
        self._until = self._ends - _RENEWED_BEFORE
        self._token = given["token"]

    @property
    def _doing(self) -> str:
        return f"asking for the App's token on {self.repository}"

    def _permissions(self, found: Mapping[str, Any]) -> dict[str, str]:
        """What to ask for. GitHub refuses a token to whoever asks for more than the App has, and
        does not say what was too much."""
        has = found.get("permissions") or {}
        where = f"at {found.get('html_url') or 'its installation'}"
        needed, useful = self.purpose.needed, [*self.purpose.useful.items()]
        # Less than that is of use, too: who sets checks reads at which commit a pull request is.
        asked = {n: level if has[n] == "write" else has[n] for n, level in useful if n in has}
        if not needed and not any(asked.get(name) == level for name, level in useful):
            needed = dict(useful[:1])  # to ask for nothing is to ask for everything
        lacking = [f"{name}: {needed[name]}" for name in needed if has.get(name) != needed[name]]
        if lacking:
            raise InputError(
                f"the App {self.app} lacks {' and '.join(lacking)} on {self.repository}",
                fix=f"add it in the App's settings, then accept it {where}",
            )
        if found.get("suspended_at"):
            raise InputError(
                f"the App {self.app} is suspended on {self.repository}", fix=f"lift that {where}"
            )
        return {**needed, **asked}

    def _unknown(self, error: AdapterbotError) -> InputError:
        """Why GitHub takes this for no App that is installed there."""
        if isinstance(error, NotFound) and "integration" not in error.message.lower():
            return InputError(
                f"the App {self.app} is not installed on {self.repository}",
                fix="install it there, in its settings under Install App, or correct the name, or "
                "GITHUB_API_URL",
            )
        behind = _behind(error.__cause__)
        if abs(behind) >= _MARGIN:
            way = "behind" if behind > timedelta() else "ahead of"
            return InputError(
                f"this machine's clock is {abs(behind).total_seconds():.0f} s {way} GitHub's, "
                "which believes no App by it",
                fix="set the clock",
            )
        return InputError(
            f"GitHub knows no App {self.app} with this key: {error.message}",
            file=f"{APP_ID} and {APP_KEY} (inputs app-id and app-key)",
            fix="copy the id from the App's settings, and make a new key there",
        )


def _send(
    client: Client, doing: str, verb: str, path: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    ask = client.api.requester.requestJsonAndCheck
    found: dict[str, Any] = client.once(doing, lambda: ask(verb, path, input=given))[1]
    return found


def _behind(error: BaseException | None) -> timedelta:
    """How far our clock is behind GitHub's, by when it answered."""
    headers = getattr(error, "headers", None) or {}
    try:
        return parsedate_to_datetime(headers["date"]) - datetime.now(UTC)
    except (KeyError, ValueError, TypeError):
        return timedelta()


def _signed(app_id: str, key: str) -> str:
    """The App's word that it is itself (RFC 7519, RS256)."""
    import jwt

    now = datetime.now(UTC)
    claims = {"iss": app_id, "iat": now - _MARGIN, "exp": now + _MARGIN}
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    # A public key is found out by its lack of a method.
    except (AttributeError, TypeError, ValueError, jwt.PyJWTError):
        # Without its cause: what the library says of a key may quote it.
        raise InputError(
            "is not a private key",
            file=f"{APP_KEY} (input app-key)",
            fix="pass the whole .pem file that GitHub gave you for the App",
        ) from None
