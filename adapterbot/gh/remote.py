"""How git reaches GitHub to push: with which token, settings and name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adapterbot import beside
from adapterbot.git.program import authorization, numbered

# Not left to the machine's configuration: without these Git would commit the weights themselves.
_FILTER = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.autocrlf": "false",
}
_NAME, _MAIL = "adapterbot", "adapterbot@users.noreply.github.com"
_REACHED = re.compile(r"GIT_(ASKPASS$|SSL_|SSH|PROXY_|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)$)")


@dataclass(frozen=True)
class Remote:
    """Where git pushes to. The token travels in the environment, never in an argument or URL.

    Attributes:
        token: asked for by each git that we start: an App's lasts an hour, and a push may take as
            long as that.
    """

    url: str = ""
    token: Callable[[], str] = field(default=str, repr=False)

    def environment(self) -> dict[str, str]:
        """Of every git process that we start.

        Raises:
            InputError, GitHubFailure: as `Client.token`.
        """
        settings = list(_FILTER.items())
        if self.url.startswith(("http://", "https://")):
            settings += authorization(self.url, self.token())
        return {
            **environment_with(settings),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_AUTHOR_NAME": _NAME,
            "GIT_AUTHOR_EMAIL": _MAIL,
            "GIT_COMMITTER_NAME": _NAME,
            "GIT_COMMITTER_EMAIL": _MAIL,
        }


def environment_with(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Ours, without what Git tells the hook that may have started us of its own repository. How a
    server is reached and trusted stays: a company's may have an authority of its own, and by hand
    git asks its user."""
    ours = beside.programs_environment().items()
    kept = {n: value for n, value in ours if not n.startswith("GIT_") or _REACHED.match(n)}
    return kept | numbered(settings)
