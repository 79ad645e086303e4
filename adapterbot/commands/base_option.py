"""`--base` as it was typed: a directory that is there, or a name on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files import there
from adapterbot.weights.trained_on import names_another


def refuse_missing(base: str) -> None:
    """Refuses a path with nothing there: an adapter would be held against no base at all.

    A name without a beginning such as `./` may be one on the Hub, which is not asked.

    Raises:
        InputError: naming it.
    """
    if base.startswith((".", "/", "~")) and not there.is_dir(Path(base)):
        raise InputError(
            "is not a directory" if there.exists(Path(base)) else "does not exist",
            file=base,
            field="--base",
            fix="name the base model's directory, or its name on the Hub",
        )


@contextmanager
def nameable(given: str | None) -> Iterator[None]:
    """Has what is wrong with a base that was not typed say how to type one: a relative path was
    meant from another folder.

    Raises:
        AdapterbotError: as inside.
    """
    try:
        yield
    except AdapterbotError as error:
        if given is None:
            error.fix = "; ".join(filter(None, ("name the base with --base", error.fix)))
        raise


def refuse_another(base: str, own: str, *, bank: Path) -> None:
    """Refuses the name of another model of the Hub than the one that a bank is of.

    Raises:
        InputError: with both names.
    """
    if not there.is_dir(Path(base)) and names_another(base, own):
        raise InputError(
            f"is {base!r}, and the bank is of {own!r}",
            file=str(bank),
            field="--base",
            fix="name its own base; if both are one model, export the bank and import it with"
            f" --base {base}",
        )
