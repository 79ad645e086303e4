"""Why a part drifted: which file, which package, how many rows, from what to what.

What was locked is known to the sidecar, to the tree that the change starts from, and to the commit
that last wrote the lock. Each is believed for a part where it gives the very hash that the lock
holds; the sidecar's list of packages, which gives none, only where the others know nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.lock import environment
from adapterbot.lock.base_model import refuse_part_of_base
from adapterbot.lock.dataset import DatasetFiles, names_file, refuse_part_of_data
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.hashing import combined, hash_files
from adapterbot.lock.line_ends import How, line_ends_or_more
from adapterbot.lock.pinned import Pinned, measure
from adapterbot.lock.schema import Lock
from adapterbot.lock.sidecar import Sidecar
from adapterbot.lock.training import TrainingConfig, predates_data

if TYPE_CHECKING:
    from adapterbot.lock.row_files import Rows

_SHOWN = 5
_UNKNOWN = "the files are not the ones that were locked"
_ANOTHER_ENVIRONMENT = "the environment is not the one that was locked"


@dataclass(frozen=True)
class Entry:
    """An entry of the data section whose files moved, the line it is on, and which they are."""

    line: int
    explanation: str


@dataclass
class Then:
    """What was locked, as far as anybody still knows; looked up when something drifted."""

    tree: Tree
    before: Tree | None
    lock_path: str
    lock: Lock
    config: str
    allowed_base: str | None
    sidecar: Sidecar | None
    cache: DigestCache | None

    @cached_property
    def _witnesses(self) -> list[tuple[Tree, Pinned]]:
        """The project as it was where the change starts, and where the lock was last written."""
        found = []
        for tree in self._trees():
            with suppress(AdapterbotError):
                old = measure(tree, self.config, allowed_base=self.allowed_base, cache=self.cache)
                found.append((tree, old))
        return found

    def _trees(self) -> Iterator[Tree]:
        from adapterbot.git.commits import last_change
        from adapterbot.git.tree import GitTree

        if self.before is not None:
            yield self.before
        for tree in (self.tree, self.before):
            if isinstance(tree, GitTree):
                commit = last_change(tree.repository, tree.commit, self.lock_path)
                if commit:
                    yield GitTree(tree.repository, commit)
                return

    def _witness(self, part: str) -> tuple[Tree, Pinned] | None:
        """The one that has the very part that was locked, else the first there is."""
        locked = getattr(self.lock, part)
        exact = (known for known in self._witnesses if getattr(known[1], part) == locked)
        return next(exact, self._witnesses[0] if self._witnesses else None)

    def base_moved(self, now: Pinned) -> str:
        """Which files of the base model are not the locked ones.

        Raises:
            OurFailure: some are missing, and it is the Hub that did not answer.
        """
        if not now.base:
            return "given by hand, and not what was locked"
        how = line_ends_or_more(
            self.tree, lambda name: join(now.directory, f"{now.base_model}/{name}")
        )
        if self.sidecar and combined(self.sidecar.base) == self.lock.base_model_sha:
            if now.training and now.base.items() < self.sidecar.base.items():
                refuse_part_of_base(now.training, self.tree, self.allowed_base)
            return files_moved(self.sidecar.base, now.base, how)
        witness = self._witness("base_model_sha")
        if witness is None:
            return _UNKNOWN
        tree, old = witness
        moved = files_moved(old.base, now.base, how)
        exact = old.base_model_sha == self.lock.base_model_sha
        return _since(moved, None if exact else tree)

    def same_data(self, now: Pinned) -> bool:
        """Whether the data is what was locked."""
        if self.lock.dataset_sha == now.dataset_sha:
            return True
        side = self.sidecar.dataset if self.sidecar and now.dataset else {}
        exact = _digest(side) == self.lock.dataset_sha
        return exact and self._as_locked(now) == side

    def _as_locked(self, now: Pinned) -> dict[str, str]:
        """The data, with those hidden files that a lock counted, as `predates_data` has it, and
        that are there still."""
        found = now.dataset.by_relative_path if now.dataset else {}
        side = self.sidecar
        if not (side and predates_data(side.settings)):
            return found
        places = {
            name: join(now.directory, name)
            for name in side.dataset.keys() - found.keys()
            if any(part.startswith(".") and part != ".." for part in name.split("/"))
        }
        hidden = hash_files(self.tree, filter(self.tree.has, places.values()))
        beside = {name: hidden[place] for name, place in places.items() if place in hidden}
        return {**found, **beside}

    def data_moved(self, now: Pinned) -> tuple[str, tuple[Entry, ...]]:
        """What happened to the data, and to what each entry of soup.yaml names, where that can be
        told; top to bottom."""
        if now.dataset is None or now.training is None:
            return "given by hand, and not what was locked", ()
        current = self._as_locked(now)
        locked = self._locked_dataset
        if locked is None:
            return _UNKNOWN, ()
        places = {name: path for path, name in now.dataset.relative.items()}
        how = line_ends_or_more(
            self.tree, lambda name: places.get(name) or join(now.directory, name)
        )
        moved = files_moved(locked, current, how)
        exact = _digest(locked) == self.lock.dataset_sha
        if current.items() < locked.items():
            refuse_part_of_data(now.training, self.tree, locked.keys() - current.keys())
        rows = self._rows_moved(now.dataset) if moved and exact else ""
        witness = None if exact else self._witness("dataset_sha")
        told = _since(f"{rows}: {moved}" if rows else moved, witness and witness[0])
        return told, tuple(_by_entry(now.training, now.dataset, locked, how))

    @property
    def _locked_dataset(self) -> Mapping[str, str] | None:
        side = self.sidecar.dataset if self.sidecar else {}
        if side and _digest(side) == self.lock.dataset_sha:
            return side
        witness = self._witness("dataset_sha")
        return witness[1].dataset.by_relative_path if witness and witness[1].dataset else None

    def _rows_moved(self, now: DatasetFiles) -> str:
        """`+120 rows, −3 rows, 14 changed`, or nothing where rows cannot be compared."""
        from adapterbot.lock.locked_rows import locked_rows
        from adapterbot.lock.rows import dataset_diff, digests_of

        try:
            tree, old = self._witness("dataset_sha") or (self.tree, None)
            if old and old.dataset and old.dataset_sha == self.lock.dataset_sha:
                then = _rows_in(tree, old.dataset)
                return dataset_diff(then, _rows_in(self.tree, now), examples=0).summary
            kept = locked_rows(self.tree, self.lock_path, self.sidecar) if self.sidecar else None
            if not kept:
                return ""
            rows = _rows_in(self.tree, now)
            renamed = {now.relative[path]: file for path, file in rows.items()}
            return dataset_diff(kept, digests_of(renamed), examples=0).summary
        except InputError:
            return ""  # rows that cannot be read; which file it is, is said all the same

    def environment_moved(self, now: Pinned) -> str:
        """Which packages are not the locked ones."""
        if now.env_hash is None:
            there = f", but {self.before.label} has it" if self.before else ""
            return f"{now.env_path} is not here{there}"
        if now.environment is None:
            return "given by hand, and not what was locked"
        current = environment.facts(now.environment)
        _, old = self._witness("env_hash") or (None, None)
        exact = old is not None and old.env_hash == self.lock.env_hash
        if self.sidecar and self.sidecar.environment and not exact:
            then = self.sidecar.environment
        elif old and old.environment:
            then = environment.facts(old.environment)
        else:
            return _ANOTHER_ENVIRONMENT
        changes = _listed(environment.explain(then, current))
        source = now.environment.made_from
        if changes and source:
            return f"{source.file}: {changes}"
        return changes or "the lock was not written from this environment"


def _rows_in(tree: Tree, dataset: DatasetFiles) -> Rows:
    """The rows of a dataset's files in the tree; those on the Hub are left out."""
    from adapterbot.lock.row_files import rows_of

    return rows_of(tree, {path: sha for path, sha in dataset.files.items() if tree.has(path)})


def _by_entry(
    training: TrainingConfig, now: DatasetFiles, locked: Mapping[str, str], how: How
) -> Iterator[Entry]:
    """The entries whose files moved. A file that is gone was that of the entry which would name it
    still; when there is none, of the first."""
    owners = {now.relative[path]: entry for path, entry in now.named.items()}
    for name in locked.keys() - owners.keys():
        would = (entry for entry in training.entries if names_file(training, entry, name))
        owners[name] = next(would, training.entries[0])
    current = now.by_relative_path
    for entry in sorted(set(owners.values()), key=lambda entry: entry.line):
        mine = [name for name, owner in owners.items() if owner == entry]
        then, here = ({n: side[n] for n in mine if n in side} for side in (locked, current))
        moved = files_moved(then, here, how)
        if moved:
            yield Entry(entry.line, moved)


def _since(moved: str, tree: Tree | None) -> str:
    """What moved, seen from what was locked, or from a tree that the lock does not match either."""
    if not moved:
        return "the lock was not written from these files"
    return f"since {tree.label} {moved}" if tree else moved


def _digest(files: Mapping[str, str]) -> str:
    return next(iter(files.values())) if len(files) == 1 else combined(files)


def files_moved(old: Mapping[str, str], new: Mapping[str, str], how: How) -> str:
    """`data/train.jsonl changed, data/more.jsonl added`."""
    moved = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]

    def told(name: str) -> str:
        if name in old and name in new:
            return f"{name} {how(name, old[name])}"
        return f"{name} {'removed' if name in old else 'added'}"

    return _listed(list(map(told, moved[:_SHOWN])), len(moved))


def adapter_moved(tree: Tree, path: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Why an adapter's weights are not the locked ones."""
    if not new:
        return f"{path or '.'} is not there"
    moved = files_moved(old, new, line_ends_or_more(tree, lambda name: join(path, name)))
    return f"these weights are not the ones that were locked: {moved} in {path or '.'}"


def _listed(changes: Sequence[str], total: int | None = None) -> str:
    rest = (total or len(changes)) - _SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(changes[:_SHOWN]) + more
