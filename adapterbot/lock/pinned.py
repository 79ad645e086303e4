"""What a lock would say now: everything that soup.yaml names, hashed, or the hashes that were given
by hand in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from posixpath import relpath

from adapterbot.errors import InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.lock import environment
from adapterbot.lock.base_model import base_files
from adapterbot.lock.dataset import DatasetFiles, dataset_files
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.environment import EnvLock
from adapterbot.lock.hashing import combined, hash_files
from adapterbot.lock.schema import Lock, closure, with_output
from adapterbot.lock.sidecar import Sidecar
from adapterbot.lock.training import TrainingConfig, load_training

ADAPTER_CONFIG = "adapter_config.json"
# What decides an adapter's behaviour; a README or a trainer's state beside it does not.
ADAPTER_FILES = (
    ADAPTER_CONFIG,
    "adapter_model.safetensors",
    "mole_config.json",  # which pins its experts by digest
    "gate.safetensors",
)


@dataclass(frozen=True)
class Given:
    """What is known without looking: Soup's four options. None is looked up."""

    base_model: str | None = None
    base_model_sha: str | None = None
    dataset_sha: str | None = None
    env_hash: str | None = None

    @property
    def needs_config(self) -> bool:
        """Whether soup.yaml has to be read for the rest."""
        return None in (self.base_model, self.base_model_sha, self.dataset_sha)


NOTHING_GIVEN = Given()


@dataclass(frozen=True)
class Pinned:
    """The state of a project. What was given by hand, or is not there, has no files.

    Attributes:
        env_hash: None without a soup-env.lock.
        env_path: where soup-env.lock is, or would be.
        adapters: path in the tree of an adapter directory → its files → SHA-256.
    """

    base_model: str
    base_model_sha: str
    dataset_sha: str
    env_hash: str | None
    env_path: str
    training: TrainingConfig | None = None
    base: Mapping[str, str] = field(default_factory=dict)
    dataset: DatasetFiles | None = None
    environment: EnvLock | None = None
    adapters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def directory(self) -> str:
        """The folder that soup.yaml lies in."""
        return self.env_path.rpartition("/")[0]


def measure(
    tree: Tree,
    config: str,
    *,
    allowed_base: str | None = None,
    given: Given = NOTHING_GIVEN,
    adapters: Sequence[str] = (),
    cache: DigestCache | None = None,
) -> Pinned:
    """Hash everything that soup.yaml names, but for what is given.

    Args:
        allowed_base: see `base_location`.
        adapters: adapter directories in the tree.

    Raises:
        InputError: a file that it names is missing or cannot be used.
        OurFailure: the Hub did not answer.
    """
    training = load_training(tree, config) if given.needs_config else None
    if training and given.base_model:
        training = replace(training, base=given.base_model)
    base: Mapping[str, str] = {}
    dataset = None
    if training and given.base_model_sha is None:
        base = base_files(training, tree, allowed_base, cache)
    if training and given.dataset_sha is None:
        dataset = dataset_files(training, tree, cache)
    env_path = join(config.rpartition("/")[0], environment.DEFAULT_NAME)
    env = read_environment(tree, env_path) if given.env_hash is None else None
    return Pinned(
        base_model=training.base if training else given.base_model or "",
        base_model_sha=given.base_model_sha or combined(base),
        dataset_sha=given.dataset_sha or (dataset.digest if dataset else ""),
        env_hash=given.env_hash or (environment.env_hash(env) if env else None),
        env_path=env_path,
        training=training,
        base=base,
        dataset=dataset,
        environment=env,
        adapters={path: adapter_files(tree, path, cache) for path in adapters},
    )


def read_environment(tree: Tree, path: str) -> EnvLock | None:
    """soup-env.lock as its source stands now: where it was made from the project's own lock file,
    that file is read again. None where there is none.

    Raises:
        InputError: it, or the file that it was made from, is broken or gone.
    """
    if not tree.has(path):
        return None
    locked = environment.loads(tree.read(path), path)
    if locked.made_from is None:
        return locked
    source = join(path.rpartition("/")[0], locked.made_from.file, field="made_from.file")
    if tree.sha256(source) == locked.made_from.sha256:
        return locked
    from adapterbot.lock.env_sources import from_lock_file

    return from_lock_file(tree.read(source), locked.made_from.file, locked.created_at)


def adapter_files(tree: Tree, path: str, cache: DigestCache | None = None) -> dict[str, str]:
    """The files that decide what an adapter does, with their digests; empty where it is gone."""
    names = tree.files(path) if tree.has(path) else ()
    prefix = f"{path}/" if path else ""
    wanted = [name for name in names if name.removeprefix(prefix) in ADAPTER_FILES]
    found = hash_files(tree, wanted, cache)
    return {PurePosixPath(name).name: digest for name, digest in found.items()}


def lock_of(pinned: Pinned, *, created_at: str, version: str, env_lock: str) -> Lock:
    """The lock of a project.

    Args:
        env_lock: where the user would write soup-env.lock, for an error to say.

    Raises:
        InputError: there is no environment to pin.
    """
    env = pinned.env_hash
    if env is None:
        command = with_output("adapterbot env lock", env_lock, environment.DEFAULT_NAME)
        raise InputError(
            "there is no environment to pin",
            file=pinned.env_path,
            fix=f"run `{command}` first, or give --env-hash",
        )
    return Lock(
        base_model=pinned.base_model,
        base_model_sha=pinned.base_model_sha,
        dataset_sha=pinned.dataset_sha,
        env_hash=env,
        closure_sha=closure(pinned.base_model_sha, pinned.dataset_sha, env),
        created_at=created_at,
        soup_version=version,
    )


def sidecar_of(pinned: Pinned, lock: Lock) -> Sidecar:
    """What goes beside the lock, so that a drift can be explained."""
    return Sidecar(
        closure_sha=lock.closure_sha,
        base=pinned.base,
        dataset=pinned.dataset.by_relative_path if pinned.dataset else {},
        environment=environment.facts(pinned.environment) if pinned.environment else {},
        settings=pinned.training.settings if pinned.training else {},
        adapters={
            relpath(path or ".", pinned.directory or "."): files
            for path, files in pinned.adapters.items()
        },
    )
