"""What a token is, and what it may do, as far as GitHub tells without anything being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterbot.gh.answers import NotFound, NotPermitted
from adapterbot.gh.client import Client

# https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
_KINDS = {
    "ghs_": "an App's or the job's own token",
    "github_pat_": "a fine-grained personal token",
    "ghp_": "a classic personal token",
    "gho_": "an OAuth token",
    "ghu_": "an App's token for a user",
}
# Nothing has the number 0, so that GitHub refuses these for want of a permission, or of the thing.
_WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "pull-requests": ("/issues/comments/0", {"body": "adapterbot doctor"}),
    "checks": ("/check-runs/0", {"name": "adapterbot doctor"}),
}


@dataclass(frozen=True)
class TokenFacts:
    """A token that GitHub knows.

    Attributes:
        login: who it speaks for.
        scopes: of a classic personal token; "" for the others, whose permissions GitHub does not
            list.
        writes: whether it may write, by the name of the permission in a workflow.
    """

    login: str
    scopes: str
    writes: dict[str, bool]


def token_kind(token: str) -> str:
    """What a token is, by the prefix that GitHub gives it."""
    for prefix, kind in _KINDS.items():
        if token.startswith(prefix):
            return kind
    return "a token of unknown kind"


def token_facts(client: Client, repository: str) -> TokenFacts:
    """Ask GitHub about the token of `client`. Writes nothing.

    Raises:
        InputError: GitHub does not know the token, or it may not see the repository.
        GitHubFailure: GitHub refused or did not answer.
    """
    login = client.login
    path = f"/repos/{repository}"
    headers, _ = client.repeat(
        f"reading {repository}",
        lambda: client.api.requester.requestJsonAndCheck("GET", path),
        permission="contents: read",
    )
    return TokenFacts(
        login=login,
        scopes=str(headers.get("x-oauth-scopes", "")),
        writes={
            name: _may(client, f"{path}{tail}", given) for name, (tail, given) in _WRITES.items()
        },
    )


def _may(client: Client, path: str, given: dict[str, Any]) -> bool:
    def write() -> object:
        return client.api.requester.requestJsonAndCheck("PATCH", path, input=given)

    try:
        client.repeat("asking what the token may do", write)
    except NotPermitted:
        return False
    except NotFound:
        pass  # it may; there is only nothing of that number
    return True
