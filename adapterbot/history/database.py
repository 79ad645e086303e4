"""Results in an SQLite file: for a runner with a disk of its own, and for work by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapterbot.errors import InputError, OurFailure
from adapterbot.history.results import from_lines
from adapterbot.records.history import PastResult

# One table, whose order is that of the first time a commit was judged.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    id INTEGER PRIMARY KEY,
    "commit" TEXT NOT NULL,
    adapter TEXT NOT NULL,
    result TEXT NOT NULL,
    UNIQUE ("commit", adapter)
)
"""
_PUT = """
INSERT INTO results ("commit", adapter, result) VALUES (?, ?, ?)
ON CONFLICT ("commit", adapter) DO UPDATE SET result = excluded.result
"""
# What SQLite says of the machine, and not of the file.
_OURS = ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_NOMEM")
# A second gate on the machine may be writing.
_SECONDS_TO_WAIT = 30.0


@dataclass(frozen=True)
class Database:
    """The file. It is made by the first result; one that is not there, or empty, holds none."""

    path: Path

    def read(self) -> tuple[PastResult, ...]:
        """Every result, oldest first.

        Raises:
            InputError: the file cannot be read, or is no history.
            OurFailure: another program holds it.
        """
        with self._usable():
            if not self.path.exists() or not self.path.stat().st_size:
                return ()
        with self._open() as connection:
            rows = connection.execute("SELECT result FROM results ORDER BY id").fetchall()
        return from_lines("\n".join(row[0] for row in rows), str(self.path))

    def append(self, results: Sequence[PastResult]) -> None:
        """Keep these, in one transaction; of a commit that is known its result is replaced.

        Raises:
            InputError: the file cannot be written, or is no history.
            OurFailure: another program holds it, or the disk is full.
        """
        with self._usable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.execute(_SCHEMA)
            connection.executemany(
                _PUT, [(one.commit, one.adapter, one.model_dump_json()) for one in results]
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._usable():
            connection = sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorname", "").startswith(_OURS):
                raise OurFailure(
                    f"cannot be used now: {error}",
                    file=str(self.path),
                    fix="see that the disk has room and no other program holds it, then try again",
                ) from error
            raise InputError(
                f"is no history that can be used: {error}",
                file=str(self.path),
                field="history.file",
                fix="name another file in adapterbot.yaml",
            ) from error
