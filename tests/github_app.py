"""A GitHub App of the test server, and the environment of whoever has its id and key."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.github_server import GitHubServer
from tests.github_server.runs import App

TOKEN = "_".join(("ghs", "minted"))
POSTING = {"checks": "write", "pull_requests": "write"}
PROPOSING = {"contents": "write", "pull_requests": "write"}


@cache
def app_key() -> tuple[str, str]:
    """The private key and the public one, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def with_app(server: GitHubServer, **more: Any) -> dict[str, str]:
    """Install an App; the environment of a job that has it, and no token.

    Args:
        more: fields of `App`.
    """
    private, public = app_key()
    fields = {"id": "321", "token": TOKEN, "login": "our-app[bot]", "permissions": POSTING}
    server.world.apps.append(App(public_key=public, **fields | more))
    return {
        "ADAPTERBOT_APP_ID": "321",
        "ADAPTERBOT_APP_KEY": private,
        "GITHUB_API_URL": server.url,
        "GITHUB_GRAPHQL_URL": server.graphql_url,
    }
