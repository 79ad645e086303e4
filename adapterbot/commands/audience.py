"""Who hears a run, by its event: the comments of a pull request, and the checks on its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from adapterbot.context import Context
from adapterbot.gh.access import client_for
from adapterbot.marker import Stamp
from adapterbot.publishing import CheckMode, CommentMode, Publishing
from adapterbot.render import Links

if TYPE_CHECKING:
    from adapterbot.gh.checks import Checks
    from adapterbot.gh.client import Client
    from adapterbot.gh.comments import Thread


class Connect(Protocol):
    """Makes a client that speaks as this job may; a hurried one has little patience."""

    def __call__(self, *, hurried: bool) -> Client: ...


@dataclass
class Audience:
    """What one run may write to on GitHub.

    Attributes:
        connect: called late, since it needs a token.
        with_artifact: whether the report was uploaded, so that a comment can point to it.
        resumed: whether another process of this attempt may have made checks already.
    """

    context: Context
    publishing: Publishing
    connect: Connect = field(repr=False)  # which knows the token
    with_artifact: bool = False
    resumed: bool = False
    _client: Client | None = None
    _checks: Checks | None = None

    @property
    def links(self) -> Links:
        """Where a comment sends its reader, from the trusted event."""
        run = self.context.run_url or ""
        report = f"{run}#artifacts" if run and self.with_artifact else ""
        return Links(run=run, summary=run, report=report)

    @property
    def stamp(self) -> Stamp:
        """Which run speaks, about which commit."""
        context = self.context
        return Stamp(context.run_id, context.run_attempt, context.head_sha or "")

    def check_name(self, key: str) -> str:
        """What the check of one adapter is called; the one over all has the gate's name."""
        return f"{self.publishing.name} / {key}"

    def comments(self) -> Thread | None:
        """Our comments; None where the event has no pull request, or they are off."""
        context = self.context
        off = self.publishing.comment is CommentMode.OFF
        if off or not (context.can_comment and context.repository and context.pull_request):
            return None
        from adapterbot.gh.comments import Thread

        mode, name = self.publishing.comment, self.publishing.name
        return Thread(self._connected(), context.repository, context.pull_request, name, mode)

    def checks(self) -> Checks | None:
        """Our checks; None where the event has no commit, or they are off."""
        context = self.context
        if self.publishing.check is CheckMode.OFF or not (context.repository and context.head_sha):
            return None
        if self._checks is None:
            from adapterbot.gh.checks import Checks

            self._checks = Checks(
                self._connected(),
                context.repository,
                context.head_sha,
                self.publishing.check,
                run=f"{context.run_id}.{context.run_attempt}" if context.run_id else "",
                url=context.run_url or "",
                resumed=self.resumed,
            )
        return self._checks

    def reconnect(self, *, hurried: bool) -> None:
        """From now on with a client of this much patience."""
        self._client = self.connect(hurried=hurried)
        if self._checks:
            self._checks.client = self._client

    def _connected(self) -> Client:
        if self._client is None:
            # Little patience on the way: nothing that is late is worth saying.
            self._client = self.connect(hurried=True)
        return self._client


def audience_for(
    context: Context,
    publishing: Publishing,
    environment: Mapping[str, str],
    *,
    with_artifact: bool = False,
    resumed: bool = False,
) -> Audience:
    """The audience of the run that this environment is the runner of. Sends nothing yet."""
    connect = partial(client_for, context.repository, environment)
    return Audience(context, publishing, connect, with_artifact, resumed)
