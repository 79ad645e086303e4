"""What a GitHub App is known by, and what its token is for. Needs no PyGithub."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

APP_ID, APP_KEY = "ADAPTERBOT_APP_ID", "ADAPTERBOT_APP_KEY"
"""The variables that name the App and hold its private key."""


class Purpose(Enum):
    """What an App's token is for. It may do no more than that, whatever the App itself may.

    Attributes:
        needed: the permissions without which there is nothing to begin with, by GitHub's names.
        useful: those that are asked for as far as the App has them; where nothing is needed, at
            least one of them it must have.
    """

    # Comments, checks or statuses, whichever are wanted; the artifacts of another run.
    POST = (
        dict[str, str](),
        {"pull_requests": "write", "checks": "write", "statuses": "write", "actions": "read"},
    )
    # Only who sees an organisation's teams may ask one for a review.
    PROPOSE = {"contents": "write", "pull_requests": "write"}, {"members": "read"}
    PUSH = {"contents": "write"}, dict[str, str]()

    def __init__(self, needed: Mapping[str, str], useful: Mapping[str, str]) -> None:
        self.needed, self.useful = needed, useful
