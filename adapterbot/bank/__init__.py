"""The vector bank: one row of vectors for each of many users, over shared projections.

What needs torch or LMDB is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from adapterbot.bank.soup import VectorBank, estimate_bank_size, read_bank, write_bank

if TYPE_CHECKING:
    from pathlib import Path

    from adapterbot.bank.store import BankStore
    from adapterbot.bank.vera import AttachedBank, attach_bank

__all__ = [
    "AttachedBank",
    "BankStore",
    "VectorBank",
    "attach_bank",
    "estimate_bank_size",
    "open_bank",
    "read_bank",
    "write_bank",
]

_LATE = {
    "AttachedBank": "adapterbot.bank.vera",
    "BankStore": "adapterbot.bank.store",
    "attach_bank": "adapterbot.bank.vera",
}


def open_bank(path: Path | str) -> BankStore:
    """Opens the bank in directory `path`, whatever its size, in milliseconds.

    Raises:
        InputError: it is not a bank.
        OurFailure: its file is damaged.
    """
    from adapterbot.bank.store import BankStore

    return BankStore(path)


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
