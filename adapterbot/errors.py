"""What can go wrong, who has to act, and which exit code says so.

0 clean · 1 we failed · 2 bad input or usage · 3 a finding. Findings are results, not
exceptions, so only the first three have a class here. The depths raise; `cli` alone maps.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The same four codes for every command."""

    CLEAN = 0
    FAILURE = 1
    BAD_INPUT = 2
    FINDING = 3


class AdapterbotError(Exception):
    """Something stopped us.

    Args:
        message: what is wrong, in one line, without a trailing full stop.
        file: the file it is about, as the user wrote it.
        field: the field, key or line inside that file.
        fix: what to do next, in one line, imperative.
    """

    exit_code = ExitCode.FAILURE

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.field = field
        self.fix = fix

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.field) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.fix})" if self.fix else text


class InputError(AdapterbotError):
    """The user, the config or the pull request handed us something we cannot use."""

    exit_code = ExitCode.BAD_INPUT


class OurFailure(AdapterbotError):
    """A bug, the GPU, the disk or the network: never a statement about the adapter."""


class EndedEarly(OurFailure):
    """The runner or a person ended the work before it was done: nobody's fault."""


class GitHubFailure(OurFailure):
    """GitHub refused or did not answer."""


def first_line(error: Exception) -> str:
    """What a library says of its error, in one line; the error's kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
