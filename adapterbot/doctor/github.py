"""The token that the gate would post with, as GitHub sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapterbot.context import api_url
from adapterbot.doctor.finding import Finding, Status
from adapterbot.errors import AdapterbotError, ExitCode
from adapterbot.gh.client import connect
from adapterbot.gh.permissions import token_facts, token_kind

_WITHOUT = {
    "pull-requests": "the gate could not comment",
    "checks": "the verdict would be no check beside the commit, at best a status",
}


def token(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What the token in GITHUB_TOKEN may do in GITHUB_REPOSITORY; nothing is written."""
    given = environment.get("GITHUB_TOKEN", "").strip()
    name = environment.get("GITHUB_REPOSITORY", "")
    if not given:
        yield Finding(
            what="token",
            found="no GITHUB_TOKEN",
            status=Status.NOTE,
            fix="only the job that comments needs one: `env: {GITHUB_TOKEN: ${{ github.token }}}`",
        )
        return
    if not name:
        yield Finding(
            what="token",
            found=f"{token_kind(given)}, not asked: no GITHUB_REPOSITORY",
            status=Status.NOTE,
            fix="set GITHUB_REPOSITORY to owner/name",
        )
        return
    try:
        client = connect(
            given,
            api_url(environment),
            graphql_url=environment.get("GITHUB_GRAPHQL_URL", ""),
        )
        facts = token_facts(client, given, name)
    except AdapterbotError as error:
        wrong = error.exit_code is ExitCode.BAD_INPUT
        yield Finding(
            what="token",
            found=f"{token_kind(given)}: {error.message}"[:500],
            status=Status.WRONG if wrong else Status.NOTE,
            fix=error.fix or "try again",
        )
        return
    scopes = f", scopes {facts.scopes}" if facts.scopes else ""
    yield Finding(what="token", found=f"{facts.kind}, speaks for {facts.login}{scopes}")
    for permission, may in facts.writes.items():
        # Without a comment there is nothing to read; without a check there is still the comment.
        needed = permission == "pull-requests"
        yield Finding(
            what=f"{permission}: write",
            found="granted" if may else f"refused: {_WITHOUT[permission]}",
            status=Status.OK if may else Status.WRONG if needed else Status.NOTE,
            fix="" if may else f"add `{permission}: write` to the job's `permissions:`",
        )
