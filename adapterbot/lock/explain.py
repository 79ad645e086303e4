"""Why a part drifted: which file, which package, how many rows, from what to what.

Two witnesses know what was locked: the sidecar, and the tree that the change starts from. Each is
believed for a part only as far as it gives the very hash that the lock holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from adapterbot.errors import AdapterbotError, InputError
from adapterbot.lock import environment
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.digests import DatasetFiles
from adapterbot.lock.hashing import combined
from adapterbot.lock.pinned import Pinned, measure
from adapterbot.lock.schema import Lock
from adapterbot.lock.sidecar import Sidecar, locked_rows
from adapterbot.tree import Tree

_SHOWN = 5
_UNKNOWN = "the files are not the ones that were locked"
_ANOTHER_ENVIRONMENT = "the environment is not the one that was locked"


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
    def _old(self) -> Pinned | None:
        """The project in the tree that the change starts from."""
        if self.before is None or not self.before.has(self.config):
            return None
        try:
            return measure(
                self.before, self.config, allowed_base=self.allowed_base, cache=self.cache
            )
        except AdapterbotError:
            return None

    def base_moved(self, now: Pinned) -> str:
        """Which files of the base model are not the locked ones."""
        if not now.base:
            return "given by hand, and not what was locked"
        if self.sidecar and combined(self.sidecar.base) == self.lock.base_model_sha:
            return files_moved(self.sidecar.base, now.base)
        if self._old is None:
            return _UNKNOWN
        moved = files_moved(self._old.base, now.base)
        return _since(moved, known=self._old.base_model_sha == self.lock.base_model_sha)

    def data_moved(self, now: Pinned) -> tuple[str, int | None]:
        """What happened to the data, and the line of soup.yaml that names it."""
        if now.dataset is None or now.training is None:
            return "given by hand, and not what was locked", None
        current = now.dataset.by_relative_path
        first = now.training.data_line
        locked = self._locked_dataset
        if locked is None:
            return _UNKNOWN, first
        moved = files_moved(locked, current)
        rows = self._rows_moved(now.dataset) if moved else ""
        line = next(
            (
                now.dataset.named[path].line
                for path, name in now.dataset.relative.items()
                if locked.get(name) != current[name]
            ),
            first,
        )
        known = _digest(locked) == self.lock.dataset_sha
        return _since(f"{rows}: {moved}" if rows else moved, known=known), line

    @property
    def _locked_dataset(self) -> Mapping[str, str] | None:
        side = self.sidecar.dataset if self.sidecar else {}
        if side and _digest(side) == self.lock.dataset_sha:
            return side
        return self._old.dataset.by_relative_path if self._old and self._old.dataset else None

    def _rows_moved(self, now: DatasetFiles) -> str:
        """`+120 rows, −3 rows, 14 changed`, or nothing where rows cannot be compared."""
        from adapterbot.lock.rows import dataset_diff, digests_of, read_rows

        try:
            rows = read_rows(self.tree, *(path for path in now.files if self.tree.has(path)))
            old = self._old.dataset if self._old else None
            if self.before and old and old.digest == self.lock.dataset_sha:
                return dataset_diff(read_rows(self.before, *old.files), rows, examples=0).summary
            kept = locked_rows(self.tree, self.lock_path, self.sidecar) if self.sidecar else None
            if kept is None:
                return ""
            renamed = {now.relative[path]: file for path, file in rows.items()}
            return dataset_diff(kept, digests_of(renamed), examples=0).summary
        except InputError:
            return ""  # rows that cannot be read; which file it is, is said all the same

    def environment_moved(self, now: Pinned) -> str:
        """Which packages are not the locked ones."""
        if now.env_hash is None:
            return f"{now.env_path} was removed here"
        if now.environment is None:
            return "given by hand, and not what was locked"
        current = environment.facts(now.environment)
        old = self._old.environment if self._old else None
        if self.sidecar and self.sidecar.environment:
            then = self.sidecar.environment
        elif old:
            then = environment.facts(old)
        else:
            return _ANOTHER_ENVIRONMENT
        changes = _listed(environment.explain(then, current))
        source = now.environment.made_from
        if changes and source:
            return f"{source.file}: {changes}"
        return changes or "the lock was not written from this environment"


def _since(moved: str, *, known: bool) -> str:
    """What moved, seen from what was locked, or from a base that the lock does not match either."""
    if not moved:
        return "the lock was not written from these files"
    return moved if known else f"since the base branch {moved}"


def _digest(files: Mapping[str, str]) -> str:
    return next(iter(files.values())) if len(files) == 1 else combined(files)


def files_moved(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """`data/train.jsonl changed, data/more.jsonl added`."""
    return _listed(
        [
            f"{name} {'added' if name not in old else 'removed' if name not in new else 'changed'}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    )


def adapter_moved(path: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Why an adapter's weights are not the locked ones."""
    if not new:
        return f"{path} is not there"
    return f"these weights are not the ones that were locked: {files_moved(old, new)} in {path}"


def _listed(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return ", ".join(changes[:_SHOWN]) + more
