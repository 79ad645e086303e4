"""The lock against what was pushed: which part drifted, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from adapterbot.errors import InputError
from adapterbot.lock import environment
from adapterbot.lock.digests import base_files, combined, dataset_digest, dataset_files
from adapterbot.lock.schema import MAX_LOCK_BYTES, Lock, closure, loads
from adapterbot.lock.training import TrainingConfig, load_training
from adapterbot.records import LockPart, LockResult, LockStatus
from adapterbot.tree import Tree, join

_UNKNOWN = "the files are not the ones that were locked"


@dataclass(frozen=True)
class Pinned:
    """What a lock would say of these files now; `env_hash` is None without a soup-env.lock."""

    training: TrainingConfig
    base: Mapping[str, str]
    dataset: Mapping[str, str]
    env_hash: str | None

    @property
    def base_model_sha(self) -> str:
        return combined(self.base)

    @property
    def dataset_sha(self) -> str:
        return dataset_digest(self.dataset)


def measure(tree: Tree, config: str, *, allowed_base: str | None = None) -> Pinned:
    """Hash everything that soup.yaml names.

    Raises:
        InputError: a file that it names is missing or cannot be used.
    """
    training = load_training(tree, config)
    env = join(training.directory, environment.DEFAULT_NAME)
    return Pinned(
        training=training,
        base=base_files(training, tree, allowed_base),
        dataset=dataset_files(training, tree),
        env_hash=environment.env_hash(environment.loads(tree.read(env), env))
        if tree.has(env)
        else None,
    )


def write(pinned: Pinned, *, created_at: str, version: str) -> Lock:
    """The lock of these files.

    Raises:
        InputError: there is no environment to pin.
    """
    env = pinned.env_hash
    if env is None:
        raise InputError(
            "there is no environment to pin",
            file=join(pinned.training.directory, environment.DEFAULT_NAME),
            fix="run `adapterbot env lock` first",
        )
    return Lock(
        base_model=pinned.training.base,
        base_model_sha=pinned.base_model_sha,
        dataset_sha=pinned.dataset_sha,
        env_hash=env,
        closure_sha=closure(pinned.base_model_sha, pinned.dataset_sha, env),
        created_at=created_at,
        soup_version=version,
    )


def check(
    tree: Tree,
    lock_path: str,
    config: str,
    *,
    before: Tree | None = None,
    allowed_base: str | None = None,
) -> LockResult:
    """Compare the lock with the files beside it.

    Args:
        before: the tree that the pull request starts from; tells which files moved.

    Raises:
        InputError: the lock or the config is broken. Drift is a result, not an error.
    """
    if not tree.has(lock_path):
        removed = before is not None and before.has(lock_path)
        return LockResult(
            # Taking the lock away must not be a way around it.
            status=LockStatus.DRIFT if removed else LockStatus.MISSING,
            path=lock_path,
            note="the lock was removed here"
            if removed
            else "no lock: the run cannot be reproduced from what was pushed",
        )
    lock = loads(tree.read(lock_path, limit=MAX_LOCK_BYTES), lock_path)
    now = measure(tree, config, allowed_base=allowed_base)
    training = now.training
    env_path = join(training.directory, environment.DEFAULT_NAME)
    old = _Before(before, config, allowed_base)
    parts = [
        _part("base_model", lock.base_model, training.base, training.path, training.base_line),
        _part(
            "base_model_sha",
            lock.base_model_sha,
            now.base_model_sha,
            training.path,
            training.base_line,
            lambda: old.moved("base", now.base),
        ),
        _part(
            "dataset_sha",
            lock.dataset_sha,
            now.dataset_sha,
            training.path,
            training.data_line,
            lambda: old.moved("dataset", now.dataset),
        ),
    ]
    env_removed = now.env_hash is None and before is not None and before.has(env_path)
    if now.env_hash is not None or env_removed:
        parts.append(
            _part(
                "env_hash",
                lock.env_hash,
                now.env_hash or "removed here",
                env_path,
                1,
                lambda: _env_moved(before, tree, env_path),
            )
        )
    return LockResult(
        status=LockStatus.OK if all(part.ok for part in parts) else LockStatus.DRIFT,
        path=lock_path,
        parts=tuple(parts),
        note=""
        if now.env_hash is not None or env_removed
        else f"environment not checked: {env_path} does not exist",
    )


def _part(
    part: str,
    locked: str,
    now: str,
    file: str,
    line: int,
    explain: Callable[[], str] = lambda: "another base model is named",
) -> LockPart:
    ok = locked == now
    return LockPart(
        part=part,
        locked=locked,
        now=now,
        ok=ok,
        explanation="" if ok else _clip(explain()),
        file=file,
        line=line,
    )


def _clip(text: str) -> str:
    return text if len(text) <= 1000 else text[:999] + "…"


@dataclass
class _Before:
    """The tree that the pull request starts from, hashed only when something drifted."""

    tree: Tree | None
    config: str
    allowed_base: str | None
    _pinned: Pinned | None = None

    def moved(self, part: Literal["base", "dataset"], now: Mapping[str, str]) -> str:
        """Which files differ from the base ref, where we can tell."""
        if self.tree is None or not self.tree.has(self.config):
            return _UNKNOWN
        try:
            self._pinned = self._pinned or measure(
                self.tree, self.config, allowed_base=self.allowed_base
            )
        except InputError:
            return _UNKNOWN
        old = self._pinned.base if part == "base" else self._pinned.dataset
        changes = [
            f"{name} {'added' if name not in old else 'removed' if name not in now else 'changed'}"
            for name in sorted(old.keys() | now.keys())
            if old.get(name) != now.get(name)
        ]
        return _listed(changes) or "the lock was not written from these files"


def _listed(changes: Sequence[str]) -> str:
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return ", ".join(changes[:5]) + more


def _env_moved(before: Tree | None, tree: Tree, path: str) -> str:
    if not tree.has(path):
        return f"{path} was removed here"
    if before is None or not before.has(path):
        return "the environment is not the one that was locked"
    try:
        old, new = (environment.loads(t.read(path), path) for t in (before, tree))
    except InputError:
        return "the environment is not the one that was locked"
    return _listed(environment.explain(old, new)) or (
        "the lock was not written from this environment"
    )
