"""`adapterbot lock write|show|check` and `adapterbot env lock`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from adapterbot import __version__, atomic, lock
from adapterbot.errors import InputError
from adapterbot.gittree import repository_root
from adapterbot.lock import environment
from adapterbot.lock.schema import MAX_LOCK_BYTES, Lock
from adapterbot.records import LockResult
from adapterbot.tree import Tree, WorkTree


def now() -> str:
    """The time, as Soup writes it."""
    return datetime.now(UTC).isoformat()


def _tree_of(path: Path) -> tuple[Tree, str]:
    """The tree that a path lies in (its Git checkout, else its folder) and its name in there."""
    path = path.absolute()
    try:
        root = repository_root(path.parent)
    except InputError:
        root = path.parent
    if not path.is_relative_to(root):  # the checkout was reached through a symbolic link
        root = path.parent
    return WorkTree(root), path.relative_to(root).as_posix()


def write(config: Path, output: Path) -> Lock:
    """Compute and write the lock of a training config.

    Raises:
        AdapterbotError: something that it pins is missing, or the file cannot be written.
    """
    tree, name = _tree_of(config)
    pinned = lock.measure(tree, name, allowed_base=_own_base(tree, name))
    made = lock.write(pinned, created_at=now(), version=__version__)
    atomic.write_text(output, lock.dumps(made))
    return made


def read(path: Path) -> Lock:
    """Read a lock and verify its closure.

    Raises:
        InputError: it is missing or broken.
    """
    tree, name = _tree_of(path)
    return lock.loads(tree.read(name, limit=MAX_LOCK_BYTES), str(path))


def check(path: Path, config: Path) -> LockResult:
    """Compare a lock with the files that its config names.

    Raises:
        InputError: the lock or the config is missing or broken.
    """
    tree, name = _tree_of(config)
    lock_tree, lock_name = _tree_of(path)
    if not lock_tree.has(lock_name):
        raise InputError(
            "does not exist", file=str(path), fix="write it with `adapterbot lock write`"
        )
    if lock_tree != tree:
        raise InputError(
            "lies in another repository than the config", file=str(path), fix="keep them together"
        )
    return lock.check(tree, lock_name, name, allowed_base=_own_base(tree, name))


def _own_base(tree: Tree, config: str) -> str:
    # On one's own machine there is no stranger: the config may name any folder.
    return lock.load_training(tree, config).base


def write_environment(output: Path) -> str:
    """Write soup-env.lock for this interpreter; returns its hash.

    Raises:
        AdapterbotError: the file cannot be written.
    """
    snapshot = environment.snapshot(now(), __version__)
    atomic.write_text(output, environment.dumps(snapshot))
    return environment.env_hash(snapshot)
