"""The token that the gate would post with, as GitHub sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapterbot.doctor.finding import Finding, note, wrong
from adapterbot.errors import AdapterbotError, ExitCode
from adapterbot.gh.access import app_of, client_for, token_of
from adapterbot.gh.permissions import token_facts, token_kind

_WITHOUT = {
    "pull-requests": "the gate could not comment",
    "checks": "the verdict would be no check beside the commit, at best a status",
}


def token(environment: Mapping[str, str], name: str) -> Iterator[Finding]:
    """What the token, or the App, may do; nothing is written.

    Args:
        name: of the repository, "owner/name"; "" where nobody knows it.
    """
    kind = "the App"
    try:
        app, _ = app_of(environment)
        given = token_of(environment)
        if not app and not given:
            yield note(
                "token",
                "no GITHUB_TOKEN",
                "only the job that comments needs one: `env: {GITHUB_TOKEN: ${{ github.token }}}`",
            )
            return
        kind = f"the App {app}" if app else token_kind(given)
        if not name:
            yield note(
                "token",
                f"{kind}, not asked: no GITHUB_REPOSITORY, and no `origin` on GitHub",
                "set GITHUB_REPOSITORY to owner/name, and of an Enterprise Server also "
                "GITHUB_SERVER_URL",
            )
            return
        facts = token_facts(client_for(name, environment), name)
    except AdapterbotError as error:
        refused = wrong if error.exit_code is ExitCode.BAD_INPUT else note
        found = ": ".join(filter(None, (kind, error.file, error.message)))[:500]
        yield refused("token", found, error.fix or "try again")
        return
    scopes = f", scopes {facts.scopes}" if facts.scopes else ""
    yield Finding(what="token", found=f"{kind}, speaks for {facts.login}{scopes}")
    for permission, may in facts.writes.items():
        what = f"{permission}: write"
        if may:
            yield Finding(what=what, found="granted")
            continue
        # Without a comment there is nothing to read; without a check there is still the comment.
        refused = wrong if permission == "pull-requests" else note
        fix = f"add `{what}` to the job's `permissions:`, or to the App"
        yield refused(what, f"refused: {_WITHOUT[permission]}", fix)
