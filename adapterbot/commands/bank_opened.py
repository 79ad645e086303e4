"""A bank opened by a command, or the one line that says why it cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbot.importing import extras

if TYPE_CHECKING:
    from adapterbot.bank.store import BankStore
    from adapterbot.bank.writer import BankWriter


def named_after(path: Path) -> str:
    """The name of a bank made at `path`: its folder's, also where that is `.`."""
    return Path(os.path.abspath(path)).name[:200] or "bank"  # noqa: PTH100 a link keeps its name


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
    """As `opened`, for writing; a bank that takes none is refused here, before any work for it."""
    with extras("bank", "banks"):
        from adapterbot.bank.failures import not_writable
        from adapterbot.bank.writer import BankWriter
    bank = BankWriter(path)
    if not os.access(path, os.W_OK):
        bank.close()
        raise not_writable(path)
    return bank
