"""The verdict beside a commit: a check run, or a commit status where the token may not make one.

A check run lives from queued over in_progress to completed; a status from pending to its end.
Both are found again by their name, so branch protection can require it, and both stand on the
head commit of the event, never on the merge commit that a runner checks out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from adapterbot.errors import AdapterbotError
from adapterbot.gh.answers import NotAccepted, NotPermitted
from adapterbot.gh.client import Client
from adapterbot.gh.workflow import Level, Note
from adapterbot.publishing import CheckMode

CHECKS_PERMISSION = "checks: write"
STATUS_PERMISSION = "statuses: write"
# GitHub's bounds: of one output's texts, of the annotations in one request, of a description.
_MOST_SUMMARY = 65_535
_MOST_ANNOTATIONS = 50
_MOST_DESCRIPTION = 140
_MOST_TITLE = 250
_MOST_MESSAGE = 16_000


class Conclusion(StrEnum):
    """How a check ends."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"
    CANCELLED = "cancelled"


_STATES = {
    Conclusion.SUCCESS: "success",
    Conclusion.NEUTRAL: "success",
    Conclusion.FAILURE: "failure",
    Conclusion.CANCELLED: "error",
}
_LEVELS = {Level.ERROR: "failure", Level.WARNING: "warning", Level.NOTICE: "notice"}


@dataclass(frozen=True)
class CheckResult:
    """How a check ended. `title` is plain text, `summary` Markdown."""

    conclusion: Conclusion
    title: str
    summary: str
    notes: tuple[Note, ...] = ()


@dataclass
class Checks:
    """The checks of one run on one commit.

    Attributes:
        repository: "owner/name".
        sha: the head commit.
        mode: `auto` makes check runs, else statuses, else nothing; `run` and `status` insist.
        run: names this attempt of this run, by which a check is recognised whose POST got no
            clear answer.
        url: the details page.
        resumed: whether another process of this attempt may have made checks already.
    """

    client: Client
    repository: str
    sha: str
    mode: CheckMode = CheckMode.AUTO
    run: str = ""
    url: str = ""
    resumed: bool = False
    refusals: list[str] = field(default_factory=list)
    _ids: dict[str, int] = field(default_factory=dict)
    _means: CheckMode | None = None
    _bare: bool = False  # GitHub refused some notes

    @property
    def annotate(self) -> bool:
        """Whether findings stand on their lines by way of a check run."""
        return self._means is CheckMode.RUN and not self._bare

    def open(self, name: str, title: str, *, queued: bool) -> None:
        """Say that a check waits, or that it is at work.

        Raises:
            InputError: the token may not, and `mode` insists.
            GitHubFailure: GitHub refused or did not answer.
        """
        status = "queued" if queued else "in_progress"
        self._say(
            name,
            {"status": status, "output": {"title": title[:_MOST_TITLE], "summary": title}},
            ("pending", title),
        )

    def close(self, name: str, result: CheckResult) -> None:
        """Say how it ended, and put its notes on their lines.

        Raises:
            InputError, GitHubFailure: as `open`.
        """
        output = {"title": result.title[:_MOST_TITLE], "summary": _cut(result.summary)}
        first, *more = _annotations(result.notes) or [[]]
        end = {"status": "completed", "conclusion": result.conclusion.value}
        status = (_STATES[result.conclusion], result.title)
        try:
            given = output | ({"annotations": first} if first else {})
            self._say(name, {**end, "output": given}, status)
            for batch in more if self._means is CheckMode.RUN else ():
                # Each PATCH adds to those before.
                self._patch(name, {"output": {**output, "annotations": batch}})
        except NotAccepted:
            if not first:
                raise
            # Files and lines may be a stranger's, and GitHub takes all notes or none. The verdict
            # must not fail with them.
            self._bare = True
            self._say(name, {**end, "output": output}, status)

    # ------------------------------------------------------------ which of the two

    def _say(self, name: str, run: dict[str, Any], status: tuple[str, str]) -> None:
        ways = {CheckMode.RUN: lambda: self._run(name, run)}
        ways[CheckMode.STATUS] = lambda: self._status(name, *status)
        if self._means is not None:
            if self._means in ways:
                ways[self._means]()
            return
        wanted = list(ways) if self.mode is CheckMode.AUTO else [self.mode]
        refused: AdapterbotError | None = None
        for way in wanted:
            try:
                ways[way]()
            except NotPermitted as error:
                refused = error
                self.refusals.append(str(error))
            else:
                self._means = way
                return
        if refused and self.mode is not CheckMode.AUTO:
            raise refused
        self._means = CheckMode.OFF

    # ------------------------------------------------------------ check runs

    def _run(self, name: str, changes: dict[str, Any]) -> None:
        if self.resumed and name not in self._ids and (known := self._find(name)) is not None:
            self._ids[name] = known
        if name in self._ids:
            self._patch(name, changes)
        else:
            self._ids[name] = self._post(name, changes)

    def _post(self, name: str, changes: dict[str, Any]) -> int:
        """The id of a new check run."""
        given = {"name": name, "head_sha": self.sha, **changes}
        given |= {"external_id": f"{self.run}/{name}"} if self.run else {}
        given |= {"details_url": self.url} if self.url else {}

        def made() -> int | None:
            known = self._find(name)
            if known is not None:
                self._ids[name] = known
                self._patch(name, changes)
            return known

        return self.client.create(
            f"creating the check {name!r} on {self.repository}@{self.sha[:7]}",
            lambda: int(self._request("POST", "/check-runs", given)["id"]),
            made,
            permission=CHECKS_PERMISSION,
        )

    def _find(self, name: str) -> int | None:
        """The newest check run of that name which this very attempt made."""
        path = f"/repos/{self.repository}/commits/{self.sha}/check-runs"
        # The newest come first, and one attempt makes few of a name: the first page has ours.
        given = {"check_name": name, "filter": "all", "per_page": 100}
        _, found = self.client.repeat(
            f"listing the checks of {self.repository}@{self.sha[:7]}",
            lambda: self.client.api.requester.requestJsonAndCheck("GET", path, parameters=given),
            permission=CHECKS_PERMISSION,
        )
        wanted = f"{self.run}/{name}"
        ours = (run["id"] for run in found["check_runs"] if run.get("external_id") == wanted)
        return max(ours, default=None)

    def _patch(self, name: str, changes: dict[str, Any]) -> None:
        self.client.repeat(
            f"updating the check {name!r} on {self.repository}",
            lambda: self._request("PATCH", f"/check-runs/{self._ids[name]}", changes),
            permission=CHECKS_PERMISSION,
        )

    # ------------------------------------------------------------ statuses

    def _status(self, name: str, state: str, description: str) -> None:
        """A status replaces the one before of its name, so posting it twice does no harm."""
        given = {"state": state, "context": name, "description": description[:_MOST_DESCRIPTION]}
        given |= {"target_url": self.url} if self.url else {}
        self.client.repeat(
            f"setting the status {name!r} on {self.repository}@{self.sha[:7]}",
            lambda: self._request("POST", f"/statuses/{self.sha}", given),
            permission=STATUS_PERMISSION,
        )

    # ------------------------------------------------------------ requests

    def _request(self, verb: str, path: str, given: dict[str, Any]) -> dict[str, Any]:
        # Not PyGithub's own methods: they turn a check's times and outputs into objects and back.
        _, data = self.client.api.requester.requestJsonAndCheck(
            verb, f"/repos/{self.repository}{path}", input=given
        )
        found: dict[str, Any] = data
        return found


def _annotations(notes: Sequence[Note]) -> list[list[dict[str, Any]]]:
    """Notes that name a file, in batches that one request may carry."""
    shown = [
        {
            "path": note.file,
            "start_line": note.line or 1,
            "end_line": note.line or 1,
            "annotation_level": _LEVELS[note.level],
            "message": note.message[:_MOST_MESSAGE] or "-",
            **({"title": note.title[:_MOST_TITLE]} if note.title else {}),
        }
        for note in notes
        if note.file
    ]
    return [shown[i : i + _MOST_ANNOTATIONS] for i in range(0, len(shown), _MOST_ANNOTATIONS)]


def _cut(summary: str) -> str:
    encoded = summary.encode()
    if len(encoded) <= _MOST_SUMMARY:
        return summary
    kept = encoded[: _MOST_SUMMARY - 100].decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] + "\nThe rest did not fit.\n"
