"""Scores by content: the baseline is never paid for twice, and a cancelled job resumes.

One SQLite file, one row per (key, sample). The key is a digest of everything that decides an
answer: base, adapter, task, settings, library versions and our own algorithm. A cache may be lost
at any time and must never be believed when damaged: then it is put aside and begun again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from adapterbot.records import SampleScore

_LOG = logging.getLogger(__name__)
_FILE = "scores.sqlite"
# Raised when the table or what is stored in it changes.
_SCHEMA = 1
_WAIT_SECONDS = 30.0
# Seconds between two transactions, which take a third of a millisecond each, and scores.
_STORE_AFTER, _STORE_EVERY = 0.05, 64
# What SQLite says of a file that is not what it wrote. Anything else (another job holds it, or the
# disk is full) says nothing against what is in it.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True)
class CacheKey:
    """Everything that decides the answers to one task.

    Attributes:
        base: digest of the base model's files.
        adapter: digest of the adapter's files; "" for the bare base.
        task: the task's digest (data, scorer, template, generation).
        settings: the engine's settings and the device it ran on, canonical JSON.
        versions: of the libraries that compute.
        algorithm: version of our own engine.
    """

    base: str
    adapter: str
    task: str
    settings: str
    versions: str
    algorithm: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all parts, by name, so that no two keys can run into each other."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CachedScore:
    """One sample's score and the tokens of its answer, which draft the next adapter's."""

    score: SampleScore
    token_ids: tuple[int, ...] = ()


class ScoreCache:
    """The scores stored in one directory. Safe with several processes; a context manager."""

    def __init__(self, directory: Path | None) -> None:
        """None remembers for as long as the object lives."""
        self._path = directory / _FILE if directory else None
        self._told = False
        self._database = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def beside(self) -> ScoreCache:
        """The same cache for another thread."""
        return ScoreCache(self._path.parent if self._path else None)

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def load(self, key: CacheKey) -> Mapping[str, CachedScore]:
        """What is stored under `key`, by sample id. What cannot be read counts as not stored."""
        try:
            rows = self._database.execute(
                "SELECT sample, check_sum, content FROM scores WHERE key = ?", (key.digest,)
            ).fetchall()
        except sqlite3.DatabaseError as error:
            self._begin_again(error)
            return {}
        found = {}
        for sample, check_sum, content in rows:
            cached = _parsed(key, sample, check_sum, content)
            if cached is not None:
                found[sample] = cached
        return found

    def holds(self, key: CacheKey) -> Set[str]:
        """The samples for which something is stored under `key`, whether or not it can be read."""
        try:
            rows = self._database.execute("SELECT sample FROM scores WHERE key = ?", (key.digest,))
            return {sample for (sample,) in rows}
        except sqlite3.DatabaseError as error:
            self._begin_again(error)
            return set()

    def store(self, key: CacheKey, scores: Iterable[CachedScore]) -> None:
        """Stores scores in one transaction: all of them or none."""
        rows = []
        for cached in scores:
            content = json.dumps(
                {"score": cached.score.model_dump(mode="json"), "tokens": cached.token_ids}
            )
            sample = cached.score.sample_id
            rows.append((key.digest, sample, _check_sum(key, sample, content), content))
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", rows
                )
        except sqlite3.DatabaseError as error:
            self._begin_again(error)

    def _opened(self) -> sqlite3.Connection:
        if self._path is None:
            return self._connect(":memory:")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._connect(str(self._path))
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._put_aside(error)
                return self._connect(str(self._path))
        except (OSError, sqlite3.DatabaseError) as error:
            _LOG.warning("no score cache can be kept in %s: %s", self._path.parent, error)
            return self._connect(":memory:")

    def _connect(self, path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=_WAIT_SECONDS)
        try:
            # A write-ahead log takes memory that every writer shares, and they may be on several
            # machines. Nor is the disk waited for: what a crash of the machine leaves is checked.
            database.execute("PRAGMA journal_mode = TRUNCATE")
            database.execute("PRAGMA synchronous = OFF")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == _SCHEMA:
                return database  # nothing to write: another job may be writing
            if version:
                raise sqlite3.DatabaseError(f"schema {version}, not {_SCHEMA}")
            with database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS scores (key TEXT, sample TEXT, check_sum TEXT,"
                    " content TEXT, PRIMARY KEY (key, sample)) WITHOUT ROWID"
                )
                database.execute(f"PRAGMA user_version = {_SCHEMA}")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _begin_again(self, error: sqlite3.DatabaseError) -> None:
        if not _is_damage(error):
            # Going without costs time only, and every batch would say so.
            if not self._told:
                _LOG.warning("the score cache cannot be used now (%s); going on without it", error)
            self._told = True
            return
        self._database.close()
        self._put_aside(error)
        self._database = self._opened()

    def _put_aside(self, error: sqlite3.DatabaseError) -> None:
        _LOG.warning("the score cache is damaged (%s) and is begun again", error)
        for suffix in ("", "-journal") if self._path else ():
            file = Path(f"{self._path}{suffix}")
            with suppress(FileNotFoundError):
                file.replace(f"{file}.damaged")


class Unsaved:
    """Scores on their way to a cache, which are stored several at a time, and at the end.

    What took longer than a moment is stored at once, whatever kills us. Of a batch, which comes at
    once and before a wait, a few dozen may be lost.
    """

    def __init__(self, cache: ScoreCache | None) -> None:
        self._cache = cache
        self._waiting: dict[CacheKey, list[CachedScore]] = {}
        self._stored = time.monotonic()

    def add(self, key: CacheKey, one: CachedScore) -> None:
        """Takes a score for its task. None that is missing: why it is (a judge that was away) may
        not be true tomorrow."""
        if one.score.missing is None:
            self._waiting.setdefault(key, []).append(one)
        many = sum(map(len, self._waiting.values())) >= _STORE_EVERY
        if many or time.monotonic() - self._stored >= _STORE_AFTER:
            self._store()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store()

    def _store(self) -> None:
        if self._cache:
            for key, scores in self._waiting.items():
                self._cache.store(key, scores)
        self._waiting.clear()
        self._stored = time.monotonic()


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is not to be believed. An error of our own has no code: another schema."""
    code = getattr(error, "sqlite_errorcode", None)
    # The primary code is the low byte of an extended one.
    return code is None or code & 0xFF in _DAMAGE


def _check_sum(key: CacheKey, sample: str, content: str) -> str:
    """Binds the content to its key and sample, so that a flipped bit or a moved row is noticed."""
    return hashlib.sha256(f"{key.digest}\0{sample}\0{content}".encode()).hexdigest()


def _parsed(key: CacheKey, sample: str, check_sum: str, content: str) -> CachedScore | None:
    if _check_sum(key, sample, content) != check_sum:
        return None
    try:
        raw = json.loads(content)
        score = SampleScore.model_validate(raw["score"])
        tokens = tuple(int(token) for token in raw["tokens"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
    return CachedScore(score, tokens) if score.sample_id == sample else None
