"""A bank opened or made by a command, or the one line that says why it cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from adapterbot.files.validation import bad_input
from adapterbot.importing import extras

if TYPE_CHECKING:
    from adapterbot.bank.manifest import Manifest
    from adapterbot.bank.store import BankStore
    from adapterbot.bank.writer import BankWriter


def manifest_at(path: Path, *, name: str | None = None, **parts: Any) -> Manifest:
    """The manifest of a bank to be made at `path`: by default of its folder's name, also where that
    is `.`.

    Raises:
        InputError: a part is longer than a manifest holds.
    """
    from adapterbot.bank.manifest import Manifest

    folder = Path(os.path.abspath(path)).name[:200]  # noqa: PTH100 a link keeps its name
    try:
        return Manifest(name=name or folder or "bank", **parts)
    except ValidationError as error:
        raise bad_input(error, file=str(path), fix="give it another") from error


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
