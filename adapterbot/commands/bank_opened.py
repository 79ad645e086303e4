"""A bank opened by a command, or the one line that says why it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.errors import OurFailure

if TYPE_CHECKING:
    from adapterbot.bank.store import BankStore
    from adapterbot.bank.writer import BankWriter


def engine_missing(error: ImportError) -> OurFailure:
    """What to say where LMDB is not installed."""
    return OurFailure(
        f"the packages for banks do not load: {error}", fix="pip install 'adapterbot[bank]'"
    )


def opened(path: Path) -> BankStore:
    """A bank for reading.

    Raises:
        InputError: it is not one.
        OurFailure: what it takes is not installed.
    """
    try:
        from adapterbot.bank.store import BankStore
    except ImportError as error:
        raise engine_missing(error) from error
    return BankStore(path)


def opened_to_write(path: Path) -> BankWriter:
    """As `opened`, for writing."""
    try:
        from adapterbot.bank.writer import BankWriter
    except ImportError as error:
        raise engine_missing(error) from error
    return BankWriter(path)
