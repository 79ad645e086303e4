"""How git reaches GitHub to push: with which token, settings and name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from adapterbot.git.program import authorization, environment_apart

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
        """The environment of every git process that we start.

        Raises:
            InputError, GitHubFailure: as `Client.token`.
        """
        settings = list(_FILTER.items())
        if self.url.startswith(("http://", "https://")):
            settings += authorization(self.url, self.token())
        return {
            **environment_apart(settings),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_AUTHOR_NAME": _NAME,
            "GIT_AUTHOR_EMAIL": _MAIL,
            "GIT_COMMITTER_NAME": _NAME,
            "GIT_COMMITTER_EMAIL": _MAIL,
        }
