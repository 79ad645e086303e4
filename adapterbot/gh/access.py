"""Whom we speak to GitHub as: the one whose token we were given, or an App by its id and key.

Every command comes in by this door. It needs no PyGithub until it is passed.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING

from adapterbot.context import api_url
from adapterbot.errors import InputError
from adapterbot.gh.purpose import APP_ID, APP_KEY, Purpose

if TYPE_CHECKING:
    from adapterbot.gh.apps import Installation
    from adapterbot.gh.client import Client

# As workflows name it, and as GitHub's own command line does.
_TOKENS = ("GITHUB_TOKEN", "GH_TOKEN")
_TIMEOUT, _HURRIED_TIMEOUT = 20, 4
_installations: MutableMapping[tuple[object, ...], Installation] = {}


def app_of(environment: Mapping[str, str]) -> tuple[str, str]:
    r"""The App's id and private key; two empty strings where none is named. On its way the key's
    line ends may have become `\n`, or Windows'; here they are its own again.

    Raises:
        InputError: one is given without the other.
    """
    app, key = (environment.get(name, "").strip() for name in (APP_ID, APP_KEY))
    if bool(app) != bool(key):
        raise InputError(
            "is given without the other",
            file=f"{APP_ID} and {APP_KEY} (inputs app-id and app-key)",
            fix="pass both, or neither",
        )
    return app, "\n".join(key.replace("\\n", "\n").splitlines())


def token_of(environment: Mapping[str, str]) -> str:
    """The token that was given; "" where there is none."""
    given = (environment.get(name, "").strip() for name in _TOKENS)
    return next(filter(None, given), "")


def client_for(
    repository: str | None,
    environment: Mapping[str, str],
    purpose: Purpose = Purpose.POST,
    *,
    hurried: bool = False,
) -> Client:
    """A client that speaks as the App, or else with the token. Sends nothing yet.

    Args:
        repository: "owner/name", of which an App is given a token.
        hurried: with little patience.

    Raises:
        InputError: neither is given, or what is given cannot be used.
    """
    from adapterbot.gh.client import HURRIED, connect

    timeout = _HURRIED_TIMEOUT if hurried else _TIMEOUT
    app, key = app_of(environment)
    if app:
        installed = _installation(app, key, repository, environment, purpose)
    return connect(
        partial(installed.token, timeout) if app else token_of(environment),
        api_url(environment),
        graphql_url=environment.get("GITHUB_GRAPHQL_URL", "").rstrip("/"),
        timeout=timeout,
        patience=HURRIED if hurried else None,
    )


def _installation(
    app: str, key: str, repository: str | None, environment: Mapping[str, str], purpose: Purpose
) -> Installation:
    """One for the whole process: its token is asked for once, and again when it gets old."""
    from adapterbot.gh.apps import Installation

    if not repository:
        raise InputError(
            "names no repository, and an App's token is for one",
            file="GITHUB_REPOSITORY",
            fix="set it to owner/name",
        )
    url = api_url(environment)
    on_runner = environment.get("GITHUB_ACTIONS") == "true"
    made = Installation(app, key, repository, url, purpose, masked=on_runner)
    return _installations.setdefault((app, key, repository, url, purpose, on_runner), made)
