"""Whose token a job speaks with: the one it was given, or one that its App is given for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from adapterbot.context import Context
from adapterbot.errors import InputError

if TYPE_CHECKING:
    from adapterbot.gh.client import Client

_TIMEOUT, _HURRIED_TIMEOUT = 20, 4
_minted: MutableMapping[tuple[str, str], str] = {}


def client_for(
    context: Context, environment: Mapping[str, str], *, hurried: bool = False
) -> Client:
    """A client that speaks as this job may.

    Raises:
        InputError: there is no token, or the App's key is none.
        GitHubFailure: GitHub did not give the App one.
    """
    from adapterbot.gh.client import HURRIED, connect

    return connect(
        token_for(context, environment),
        context.api_url,
        graphql_url=context.graphql_url,
        timeout=_HURRIED_TIMEOUT if hurried else _TIMEOUT,
        patience=HURRIED if hurried else None,
    )


def token_for(context: Context, environment: Mapping[str, str]) -> str:
    """The token itself, which git takes.

    Raises:
        InputError: there is none, or the App's key is none.
        GitHubFailure: GitHub did not give the App one.
    """
    app, key = environment.get("ADAPTERBOT_APP_ID", ""), environment.get("ADAPTERBOT_APP_KEY", "")
    if bool(app) != bool(key):
        raise InputError(
            "is given without the other",
            file="inputs app-id and app-key",
            fix="pass both, or neither",
        )
    if app and context.repository:
        from adapterbot.gh.apps import installation_token
        from adapterbot.gh.workflow import mask

        known = app, context.repository
        if known not in _minted:
            token = installation_token(app, key, context.repository, context.api_url)
            # The runner stars out the secrets that it knows, and this one it does not know yet.
            if environment.get("GITHUB_ACTIONS") == "true":
                sys.stderr.write(f"{mask(token)}\n")
            _minted[known] = token
        return _minted[known]
    token = environment.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise InputError(
            "there is no token to comment with",
            file="GITHUB_TOKEN",
            fix="pass `token: ${{ github.token }}`, or `publish: none`",
        )
    return token
