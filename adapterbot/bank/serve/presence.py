"""Whether the bank that is served is the one that lies at its path, and can be read."""

from __future__ import annotations

import logging
from pathlib import Path

from adapterbot.bank.environment import rows_of
from adapterbot.bank.store import BankStore
from adapterbot.errors import AdapterbotError

_LOG = logging.getLogger(__name__)


class Presence:
    """Watches a bank from when it is opened: what a server has open outlives its name."""

    def __init__(self, store: BankStore) -> None:
        self._store = store
        self._folder = _identity(store.path)
        self._files: dict[str, list[tuple[int, int] | None]] = {}
        self._said: str | None = None
        self.lack()

    def lack(self) -> str | None:
        """Why requests should rather go elsewhere; None while all is well. The log is told each
        reason once."""
        found = self._lack()
        if found is not None and found != self._said:
            _LOG.error("%s: %s", self._store.path, found)
        self._said = found
        return found

    def _lack(self) -> str | None:
        store, looked_at = self._store, ""
        while True:
            try:
                store.require()  # which follows the rows to where compacting has moved them
            except AdapterbotError as error:
                return f"cannot be read: {error}"
            name = store.manifest.rows
            file = store.path / name
            found = [_identity(file), _identity(rows_of(file))]
            same = None not in found and self._files.setdefault(name, found) == found
            if same and _identity(store.path) == self._folder:
                return None
            if name == looked_at:
                return "another bank was put in its place, or it was removed; restart the server"
            looked_at = name  # unless it was compacted just now


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
