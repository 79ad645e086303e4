"""How a bank's files fail those who open them."""

from __future__ import annotations

from adapterbot.errors import InputError, OurFailure


def not_writable(path: object) -> InputError:
    """The refusal of a bank that is somebody else's to write."""
    return InputError(
        "may not be written to",
        file=str(path),
        fix="make the bank's folder writable for you, and what is in it",
    )


def damaged(file: object, why: object) -> OurFailure:
    """The failure for a file that is not as it was written."""
    return OurFailure(
        f"{file} is damaged: {why}", fix="run `adapterbot bank verify`, restore it from a backup"
    )
