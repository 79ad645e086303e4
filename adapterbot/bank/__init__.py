"""The vector bank: one row of vectors for each of many users, over shared projections.

What needs torch or LMDB is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.bank.soup import VectorBank, estimate_bank_size, read_bank, write_bank
from adapterbot.late import late

if TYPE_CHECKING:
    from pathlib import Path

    from adapterbot.bank.attached import AttachedBank, attach_bank
    from adapterbot.bank.store import BankStore

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(
        __name__,
        {
            "AttachedBank": "adapterbot.bank.attached",
            "BankStore": "adapterbot.bank.store",
            "attach_bank": "adapterbot.bank.attached",
        },
    )


def open_bank(path: Path | str) -> BankStore:
    """Opens the bank in directory `path`, whatever its size, in milliseconds.

    Raises:
        InputError: it is not a bank.
        OurFailure: its file is damaged.
    """
    from adapterbot.bank import BankStore

    return BankStore(path)
