"""What is proposed as a pull request, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from adapterbot.gh.branches import Change


class Action(StrEnum):
    """What became of the pull request."""

    OPENED = "opened"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    NOTHING = "nothing to propose"


@dataclass(frozen=True)
class Proposal:
    """What is proposed, and to whom.

    Attributes:
        base, branch: where it goes, and the branch it is proposed from.
        key: what the marker in the body carries.
        subject: the first line of the commit's message, with nothing alive in it.
        body: (base commit, bytes that others need) → our part of the body, its first line the
            marker.
        merged: (ours, theirs) → a body that keeps what people wrote around our part.
        reviewers: logins, and teams as "org/team".
    """

    base: str
    branch: str
    key: str
    title: str
    subject: str
    change: Change
    body: Callable[[str, int], str]
    merged: Callable[[str, str], str]
    labels: Sequence[str] = ()
    reviewers: Sequence[str] = ()
    draft: bool = False


@dataclass(frozen=True)
class Proposed:
    """Where the pull request is and what was done. `url` is None when there was nothing to do."""

    action: Action
    base_sha: str
    url: str | None = None
    number: int | None = None
    commit: str | None = None
