"""Where an attached bank takes its rows from: a store, an exported file, or Soup's bank. (torch)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adapterbot.bank import shared
from adapterbot.bank.codec import Rows, plain
from adapterbot.bank.manifest import Generated, Manifest, SoupLayout
from adapterbot.bank.portable import Portable, shared_of
from adapterbot.bank.soup import VectorBank
from adapterbot.bank.store import BankStore
from adapterbot.errors import InputError


class Source(Protocol):
    """Rows by user's name."""

    @property
    def manifest(self) -> Manifest:
        """What the rows are."""

    @property
    def version(self) -> int:
        """Changes whenever any row may have."""

    def shared(self) -> Mapping[str, Tensor]:
        """The shared tensors, proved by their digest."""

    def gather(self, users: Sequence[str]) -> Rows:
        """The rows of users, in order.

        Raises:
            InputError: there is no such user.
        """

    def digests(self, users: Sequence[str]) -> list[bytes | None]:
        """What changes when a user's row does; None for a user who is not there."""


class StoreSource:
    """A store, which others may write to meanwhile."""

    def __init__(self, store: BankStore) -> None:
        self._store = store

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    @property
    def version(self) -> int:
        return self._store.version

    def shared(self) -> Mapping[str, Tensor]:
        return shared.load(self._store.path, self._store.manifest)

    def gather(self, users: Sequence[str]) -> Rows:
        # Checked: a damaged row must not be somebody's answer, and a miss is rare.
        return self._store.gather(users, check=True)

    def digests(self, users: Sequence[str]) -> list[bytes | None]:
        return self._store.digests(users)


class _Fixed:
    """Rows that do not change while they are used."""

    version = 0

    def __init__(self, users: Sequence[str]) -> None:
        self._index = {user: index for index, user in enumerate(users)}

    def _indices(self, users: Sequence[str]) -> list[int]:
        for user in users:
            if user not in self._index:
                raise InputError("is not in the bank", field=user[:80], fix="correct the name")
        return [self._index[user] for user in users]

    def digests(self, users: Sequence[str]) -> list[bytes | None]:
        return [b"" if user in self._index else None for user in users]


class PortableSource(_Fixed):
    """An exported file."""

    def __init__(self, portable: Portable) -> None:
        super().__init__(portable.users)
        self.manifest = portable.manifest
        self._portable = portable

    def shared(self) -> Mapping[str, Tensor]:
        if isinstance(self.manifest.shared, Generated):
            return shared.load(self._portable.file, self.manifest)
        found = {
            name: torch.from_numpy(np.array(tensor))
            for name, tensor in shared_of(self._portable).items()
        }
        shared.prove(found, self.manifest, str(self._portable.file))
        return found

    def gather(self, users: Sequence[str]) -> Rows:
        return self._portable.rows(self._indices(users))


class SoupSource(_Fixed):
    """Soup's bank in memory."""

    def __init__(self, bank: VectorBank) -> None:
        super().__init__(list(bank.entries))
        self._bank = bank
        layout = SoupLayout(size=bank.dimension)
        self.manifest = Manifest(
            name=bank.name,
            base_model=bank.base_model,
            layout=layout,
            shared=shared.generated(layout, bank.projection_seed),
        )
        self._values = np.array(list(bank.entries.values()), dtype=np.float32)

    def shared(self) -> Mapping[str, Tensor]:
        return shared.draw(self.manifest.layout, self._bank.projection_seed)

    def gather(self, users: Sequence[str]) -> Rows:
        return plain(self._values[self._indices(users)])


def source_of(bank: BankStore | Portable | VectorBank) -> Source:
    """The rows of whatever holds a bank."""
    if isinstance(bank, BankStore):
        return StoreSource(bank)
    return PortableSource(bank) if isinstance(bank, Portable) else SoupSource(bank)
