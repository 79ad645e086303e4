"""`--base` as it was typed: a directory that is there, or a name on the Hub."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import InputError


def refuse_missing(base: str) -> None:
    """Refuses a path with nothing there: an adapter would be held against no base at all.

    A name without a beginning such as `./` may be one on the Hub, which is not asked.

    Raises:
        InputError: naming it.
    """
    if base.startswith((".", "/", "~")) and not Path(base).is_dir():
        raise InputError(
            "is not a directory" if Path(base).exists() else "does not exist",
            file=base,
            field="--base",
            fix="name the base model's directory, or its name on the Hub",
        )
