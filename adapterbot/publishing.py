"""How a gate shows on a pull request: what its comment does, when there is one, and the check.

None of it is policy: it decides who is told, never what is found. The command line reads its
choices here, so nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from adapterbot.marker import DEFAULT_NAME, check_name


class CommentMode(StrEnum):
    """What a new run does with the comment of the last one."""

    UPDATE = "update"
    RECREATE = "recreate"
    MINIMIZE = "minimize"
    OFF = "off"


class CommentWhen(StrEnum):
    """What is worth a first comment. One that is there already always follows the verdict."""

    ALWAYS = "always"
    CHANGES = "changes"
    REGRESSIONS = "regressions"


class CheckMode(StrEnum):
    """How the verdict stands beside the commit; `auto` takes what the token may do."""

    AUTO = "auto"
    RUN = "run"
    STATUS = "status"
    OFF = "off"


@dataclass(frozen=True)
class Publishing:
    """What is posted, and under which name.

    Raises:
        InputError: the name could not stand in a marker.
    """

    comment: CommentMode = CommentMode.UPDATE
    when: CommentWhen = CommentWhen.ALWAYS
    check: CheckMode = CheckMode.AUTO
    name: str = DEFAULT_NAME

    def __post_init__(self) -> None:
        check_name(self.name)


USUAL = Publishing()
