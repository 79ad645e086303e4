"""A bank opened by a command, or the one line that says why it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.importing import extras

if TYPE_CHECKING:
    from adapterbot.bank.store import BankStore
    from adapterbot.bank.writer import BankWriter


def opened(path: Path) -> BankStore:
    """A bank for reading.

    Raises:
        InputError: it is not one.
        OurFailure: what it takes is not installed.
    """
    with extras("bank", "banks"):
        from adapterbot.bank.store import BankStore
    return BankStore(path)


def opened_to_write(path: Path) -> BankWriter:
    """As `opened`, for writing."""
    with extras("bank", "banks"):
        from adapterbot.bank.writer import BankWriter
    return BankWriter(path)
