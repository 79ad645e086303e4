"""Who answers each row of a pass: a tenant of the bank, a mixture, or the bare base. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from adapterbot.bank.serve.jobs import Ask

if TYPE_CHECKING:
    from adapterbot.bank.attached import AttachedBank


class Rowwise(Protocol):
    """What can be live for some rows of a batch and not for others: a mixture on the model."""

    def select(self, rows: Sequence[bool]) -> None:
        """Makes it live for the rows that are true, in the passes that follow."""


class Live:
    """A bank and mixtures on one model."""

    def __init__(self, bank: AttachedBank | None, mixtures: Mapping[str, Rowwise]) -> None:
        self._bank = bank
        self._mixtures = mixtures

    def select(self, asks: Sequence[Ask]) -> None:
        """Makes what each row asked for live for that row.

        Raises:
            AdapterbotError: a tenant is gone or damaged; no tenant is live then.
        """
        if self._bank:
            self._bank.select([ask.tenant for ask in asks])
        for name, mixture in self._mixtures.items():
            mixture.select([ask.mixture == name for ask in asks])

    def is_of(self, ask: Ask) -> bool:
        """Whether the row that was made live for `ask` is the one that it was asked of."""
        return ask.tenant is None or not self._bank or self._bank.digest(ask.tenant) == ask.row

    def prefetch(self, tenant: str) -> None:
        """Has a tenant's row read beside what is going on."""
        if self._bank:
            self._bank.prefetch([tenant])
