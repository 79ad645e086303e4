"""`adapterbot lock …` and `adapterbot env lock`: what they do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from posixpath import relpath

from adapterbot import __version__, lock
from adapterbot.commands.folders import checkout_around
from adapterbot.commands.spared import spare
from adapterbot.errors import AdapterbotError, InputError
from adapterbot.files import atomic, there
from adapterbot.files.tree import Tree, WorkTree, not_a_file
from adapterbot.lock import environment, sidecar
from adapterbot.lock.check import Check
from adapterbot.lock.dataset import DatasetFiles, names_file
from adapterbot.lock.digest_cache import DigestCache, default_path
from adapterbot.lock.pinned import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    NOTHING_GIVEN,
    Given,
    lock_of,
    measure,
    sidecar_of,
)
from adapterbot.lock.schema import (
    MAX_LOCK_BYTES,
    SOUP_LOCK,
    Lock,
    line_text,
    rewriting,
    sha256_text,
)
from adapterbot.lock.training import SOUP_YAML, TrainingConfig

OUTPUT = "--output, -o"


def now() -> str:
    """The time, as Soup writes it."""
    return datetime.now(UTC).isoformat()


def given(
    base_model: str | None = None,
    base_sha: str | None = None,
    dataset_sha: str | None = None,
    env_hash: str | None = None,
) -> Given:
    """The hashes that were written on the command line.

    Raises:
        InputError: one of them is malformed.
    """
    hashes = {"--base-sha": base_sha, "--dataset-sha": dataset_sha, "--env-hash": env_hash}
    for option, value in hashes.items():
        if value is not None:
            sha256_text(value, file=None, field=option, fix="pass it as `sha256sum` prints it")
    if base_model is not None:
        line_text(
            base_model, 512, file="the command line", field="--base-model", fix="name a model"
        )
    return Given(base_model, base_sha, dataset_sha, env_hash)


def _tree_of(first: Path, *others: Path) -> tuple[WorkTree, list[str]]:
    """The tree that files lie in, and their names in there: their Git checkout, else the folder
    that they share.

    Links on the way to it are the user's own; those inside are for the tree to refuse.
    """
    for path in (first, *others):
        if there.is_dir(path):
            raise not_a_file(str(path), path, "")
    files = [there.real(path.parent) / path.name for path in (first, *others)]
    tops = [checkout_around(file.parent) for file in files]
    for path, top in zip(others, tops[1:], strict=True):
        if top != tops[0]:
            raise InputError(
                f"lies in another repository than {first}", file=str(path), fix="keep them together"
            )
    root = tops[0] or Path(os.path.commonpath([file.parent for file in files]))
    return WorkTree(root), [file.relative_to(root).as_posix() for file in files]


def config_of(lock: Path) -> Path:
    """The training config of a lock, where nobody names it: the one beside it, else the one in
    the working directory."""
    beside = lock.parent / SOUP_YAML
    return beside if there.is_file(beside) else Path(SOUP_YAML)


def open_cache(*, used: bool = True) -> DigestCache | None:
    """The digests of this user's earlier runs; None when they are not wanted."""
    return DigestCache(default_path()) if used else None


def write(
    config: Path,
    output: Path,
    *,
    given: Given = NOTHING_GIVEN,
    adapters: Sequence[Path] | None = None,
    rows: bool = False,
    cache: DigestCache | None = None,
) -> Lock:
    """Compute and write the lock of a training config, and what explains it beside it.

    Args:
        adapters: adapter directories to record; when None, the config's `output`, or the only
            one below its folder.
        rows: whether to keep a digest of every row of the dataset.

    Raises:
        AdapterbotError: something that it pins is missing, or a file cannot be written.
    """
    configs = [path / ADAPTER_CONFIG for path in adapters or ()]
    tree, (name, *named) = _tree_of(config, *configs)
    recorded = tuple(_adapter(tree, path) for path in named)
    if given.needs_config:
        training = lock.load_training(tree, name)
        if given.dataset_sha is None:
            _refuse_itself(tree, training, output)
        if adapters is None:
            recorded = _adapters_of(tree, training)
    weights = (tree.root / path / part for path in recorded for part in ADAPTER_FILES)
    environment_lock = config.parent / environment.DEFAULT_NAME
    spare(output, config, environment_lock, *weights, field=OUTPUT, own=SOUP_LOCK)
    pinned = measure(
        tree,
        name,
        allowed_base=_own_base(tree, name, given),
        given=given,
        adapters=recorded,
        cache=cache,
    )
    made = lock_of(pinned, created_at=now(), version=__version__, env_lock=str(environment_lock))
    files = {output: lock.dumps(made)}
    beside = Path(sidecar.folder(str(output)))
    if pinned.training:
        # It names the lock's closure: after a kill in between it is passed over.
        files[beside / sidecar.FILE] = sidecar.dumps(sidecar_of(pinned, made))
    if rows and pinned.dataset:
        files[beside / sidecar.ROWS] = _row_digests(tree, pinned.dataset, made)
    atomic.write_all({path: text.encode() for path, text in files.items()})
    if not rows:
        (beside / sidecar.ROWS).unlink(missing_ok=True)
    if cache:
        cache.save()
    return made


def _refuse_itself(tree: WorkTree, training: TrainingConfig, output: Path) -> None:
    """Refuses data that the lock would be part of: once written, it would no longer match."""
    here = there.real(output.parent) / output.name
    if not here.is_relative_to(tree.root):
        return
    name = here.relative_to(tree.root).as_posix()
    for written in (name, f"{sidecar.folder(name)}/{sidecar.FILE}"):
        seen = relpath(written, training.directory or ".")
        for entry in training.entries:
            if names_file(training, entry, seen):
                raise InputError(
                    f"{entry.text!r} names {seen}, which is no data",
                    file=training.path,
                    field=entry.place,
                    fix="name the folder of the data, or write the lock elsewhere with -o",
                )


def _row_digests(tree: Tree, dataset: DatasetFiles, made: Lock) -> str:
    from adapterbot.lock.locked_rows import rows_text
    from adapterbot.lock.row_files import rows_of
    from adapterbot.lock.rows import row_digests

    local = {name: sha for name, sha in dataset.files.items() if tree.has(name)}
    digests: Mapping[str, Iterator[bytes]] = {
        dataset.relative[name]: row_digests(file) for name, file in rows_of(tree, local).items()
    }
    return "".join(rows_text(made.closure_sha, digests))


def _adapters_of(tree: Tree, training: TrainingConfig) -> tuple[str, ...]:
    """The adapter that a run gives. Where its `output` holds none, it is the only one in or below
    the config's folder; checkpoints of the run do not count."""
    from adapterbot.changes.conventions import adapter_directories

    prefix = f"{training.directory}/" if training.directory else ""
    below = adapter_directories([name for name in tree.survey() if name.startswith(prefix)])
    output = relpath(f"{prefix}{training.output or '.'}", ".")
    if output in below:
        return (output,)
    return tuple(below) if len(below) == 1 else ()


def _adapter(tree: Tree, config: str) -> str:
    if not tree.has(config):
        raise InputError(
            f"holds no {ADAPTER_CONFIG}",
            file=config.rpartition("/")[0],
            field="--adapter",
            fix="name an adapter directory",
        )
    return config.rpartition("/")[0]


def read(path: Path) -> Lock:
    """Read a lock and verify its closure.

    Raises:
        InputError: it is missing or broken.
    """
    tree, (name,) = _tree_of(path)
    _must_be_there(tree, name, path)
    return lock.loads(tree.read(name, limit=MAX_LOCK_BYTES), str(path))


def _must_be_there(tree: WorkTree, name: str, path: Path) -> None:
    if not tree.has(name):
        raise InputError(
            "does not exist", file=str(path), fix=f"write it with `{rewriting(str(path))}`"
        )


def check(
    path: Path,
    config: Path,
    *,
    given: Given = NOTHING_GIVEN,
    cache: DigestCache | None = None,
) -> Check:
    """Compare a lock with the files that its config names, or with the hashes that were given.

    Raises:
        AdapterbotError: the lock or the config is missing or broken, or the Hub did not answer.
    """
    # Without a config the lock's own folder is the project.
    tree, (lock_name, name) = _tree_of(path, config if given.needs_config else path)
    _must_be_there(tree, lock_name, path)
    base = _own_base(tree, name, given)

    def look(before: Tree | None) -> Check:
        return lock.check(
            tree, lock_name, name, before=before, allowed_base=base, given=given, cache=cache
        )

    found = look(None)
    if found.status == "drift":
        # What was committed last may well be what was locked, and then knows what moved.
        head = _head(tree)
        found = look(head) if head else found
    if cache:
        cache.save()
    return found


def _head(tree: WorkTree) -> Tree | None:
    if not there.exists(tree.root / ".git"):
        return None
    from adapterbot.git.commits import resolve_commit
    from adapterbot.git.tree import GitTree

    try:
        return GitTree(tree.root, resolve_commit(tree.root, "HEAD"))
    except AdapterbotError:
        return None  # no commit yet, or no Git


def _own_base(tree: Tree, config: str, given: Given) -> str | None:
    # On one's own machine there is no stranger: the config may name any folder.
    if given.base_model or not given.needs_config:
        return given.base_model
    return lock.load_training(tree, config).base


def write_environment(output: Path, source: Path | None = None) -> str:
    """Write soup-env.lock; returns its hash.

    Args:
        source: the project's own lock file to read the packages from; what is installed beside
            this interpreter when None.

    Raises:
        AdapterbotError: the source is not a lock file, or the file cannot be written.
    """
    from adapterbot.lock.env_installed import installed
    from adapterbot.lock.env_sources import from_lock_file

    spare(output, source, field=OUTPUT, own=environment.DEFAULT_NAME)
    if source is None:
        found = installed(now())
    else:
        tree, (output_name, name) = _tree_of(output, source)
        seen = relpath(name, output_name.rpartition("/")[0] or ".")
        found = from_lock_file(tree.read(name), seen, now())
    atomic.write_text(output, environment.dumps(found))
    return environment.env_hash(found)
