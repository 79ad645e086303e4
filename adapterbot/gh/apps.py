"""A GitHub App's token: its id and private key become a token for this repository, for an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from adapterbot.errors import InputError
from adapterbot.gh.client import connect

# No more than a gate posts with, whatever the App itself may do.
_NEEDED = {"checks": "write", "issues": "write", "pull_requests": "write"}
# For the artifacts of another run, and for commit statuses. GitHub refuses a token to whoever asks
# for more than the App has.
_WHERE_GIVEN = {"actions": "read", "statuses": "write"}
_LIFE = timedelta(minutes=9)  # GitHub takes ten at most


def installation_token(app_id: str, key: str, repository: str, api_url: str) -> str:
    r"""A token of the App's installation on a repository.

    Args:
        app_id: the App's id, or its client id.
        key: its private key, PEM. Line ends may have become `\n` on the way.

    Raises:
        InputError: the key is none, or the App is not installed there, or may not enough.
        GitHubFailure: GitHub refused or did not answer.
    """
    signed = _signed(app_id.strip(), key.strip().replace("\\n", "\n"))
    # The same door as for everything else; only what the token is differs.
    client = connect(signed, api_url)

    def send(verb: str, path: str, given: dict[str, object] | None = None) -> dict[str, object]:
        _, data = client.api.requester.requestJsonAndCheck(verb, path, input=given)
        found: dict[str, object] = data
        return found

    installed = client.repeat(
        f"looking for the App's installation on {repository}",
        lambda: send("GET", f"/repos/{repository}/installation"),
    )
    has = installed.get("permissions")
    given = has if isinstance(has, dict) else {}
    wanted = _NEEDED | {
        name: level for name, level in _WHERE_GIVEN.items() if given.get(name) in (level, "write")
    }
    # A token that got lost on the way expires by itself, so asking twice does no harm.
    minted = client.repeat(
        f"asking for the App's token on {repository}",
        lambda: send(
            "POST",
            f"/app/installations/{installed['id']}/access_tokens",
            {"repositories": [repository.partition("/")[2]], "permissions": wanted},
        ),
    )
    return str(minted["token"])


def _signed(app_id: str, key: str) -> str:
    """The App's word that it is itself (RFC 7519, RS256).

    Raises:
        InputError: the key is no private key.
    """
    import jwt

    now = datetime.now(UTC)
    # A minute back: clocks differ, and GitHub refuses what is issued in its future.
    claims = {"iss": app_id, "iat": now - timedelta(minutes=1), "exp": now + _LIFE}
    try:
        return jwt.encode(claims, key, algorithm="RS256")
    # A public key is found out by its lack of a method.
    except (AttributeError, TypeError, ValueError, jwt.PyJWTError):
        # Without its cause: what the library says of a key may quote it.
        raise InputError(
            "is not a private key",
            file="input app-key",
            fix="pass the whole .pem file that GitHub gave you for the App",
        ) from None
