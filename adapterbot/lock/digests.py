"""Content digests of a base model and of a dataset.

A digest over several files is the SHA-256 of what `sha256sum` prints for them, sorted by path, so
that anyone can recompute it with standard tools; the digest of a single file is simply its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from adapterbot.errors import InputError
from adapterbot.lock.environment import DEFAULT_NAME
from adapterbot.lock.training import TrainingConfig, load_training
from adapterbot.tree import Tree, WorkTree, join, normalise

# What transformers can read from a model directory; notes and pictures change nothing.
_MODEL_SUFFIXES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".model", ".txt", ".jinja", ".py"}
)
_MODEL_NOTES = ("readme*", "license*", "notice*", "usage*", "training_args*", "trainer_state*")


def combined(digests: Mapping[str, str]) -> str:
    """One SHA-256 for a set of files, whatever their order.

    Args:
        digests: path → SHA-256 in lowercase hex.
    """
    listing = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def is_model_file(name: str) -> bool:
    """Whether a file of a model directory takes part in what the model computes."""
    base = PurePosixPath(name).name.lower()
    if base.startswith(".") or any(fnmatch(base, pattern) for pattern in _MODEL_NOTES):
        return False
    return PurePosixPath(base).suffix in _MODEL_SUFFIXES


def model_files(tree: Tree, directory: str) -> dict[str, str]:
    """Path below `directory` → SHA-256, for every file that is part of the model.

    Raises:
        InputError: the directory holds no model.
    """
    prefix = f"{directory}/" if directory else ""
    found = {
        name.removeprefix(prefix): tree.sha256(name)
        for name in tree.files(directory)
        if is_model_file(name)
    }
    if "config.json" not in found:
        raise InputError(
            f"holds no model in {tree.label} (no config.json)",
            file=directory or ".",
            fix="commit the base model there, or correct `base`",
        )
    return found


def base_location(training: TrainingConfig, tree: Tree, allowed: str | None) -> Path | str | None:
    """Where the base model of soup.yaml is: a path inside the tree, a directory on this machine,
    or None when it is the id of a model on the Hub.

    A directory outside the repository is used only when `allowed`, which comes from the base ref,
    names the very same one: a pull request must not point us at arbitrary folders of the runner.

    Raises:
        InputError: an absolute path that the base ref does not name.
    """
    base = training.base
    if PurePosixPath(base).is_absolute():
        if base != allowed:
            raise InputError(
                "points outside the repository",
                file=training.path,
                field=f"base (line {training.base_line})",
                fix=f"name it as `base_model: {base}` in adapterbot.yaml on the base branch",
            )
        return Path(base)
    inside = join(training.directory, base, field="base")
    if tree.has(inside):
        return inside
    if base.startswith((".", "/")):
        raise InputError(
            f"{base!r} does not exist in {tree.label}",
            file=training.path,
            field=f"base (line {training.base_line})",
            fix="commit the base model there, or name a model of the Hub",
        )
    return None


def resolve_base(tree: Tree, config: str, allowed: str | None) -> tuple[str, str | Path]:
    """The base model that a config names, and what to load it from: a directory on this disk, or
    its name on the Hub.

    Raises:
        InputError: as `base_location`, or a name on the Hub that is also a folder here, which
            transformers would take instead.
    """
    training = load_training(tree, config)
    where = base_location(training, tree, allowed)
    if isinstance(where, str):
        return training.base, tree.on_disk(where)
    if where is None and Path(training.base).exists():
        raise InputError(
            f"{training.base!r} is a folder here, but not one that {training.path} can mean",
            file=training.path,
            field=f"base (line {training.base_line})",
            fix="write it with a leading ./ from the config's folder, or remove the folder",
        )
    return training.base, training.base if where is None else where


def base_in_tree(tree: Tree, config: str) -> dict[str, str]:
    """The files of the base model with their digests, where it lies in the tree; else nothing.

    Raises:
        InputError: the config or the base model cannot be read.
    """
    training = load_training(tree, config)
    where = base_location(training, tree, training.base)
    return model_files(tree, where) if isinstance(where, str) else {}


def base_files(training: TrainingConfig, tree: Tree, allowed: str | None) -> dict[str, str]:
    """The files of the base model with their digests.

    Raises:
        InputError: as `base_location` and `model_files`, or the Hub has no such model.
    """
    where = base_location(training, tree, allowed)
    if isinstance(where, Path):
        return model_files(WorkTree(where, label=str(where)), "")
    if where is not None:
        return model_files(tree, where)
    from adapterbot.lock.hub import hub_files

    return hub_files(training, is_model_file)


def dataset_files(training: TrainingConfig, tree: Tree) -> dict[str, str]:
    """Every file that the data section names, with its digest, by repository path.

    Raises:
        InputError: one of them does not exist, or a pattern matches nothing.
    """
    found: dict[str, str] = {}
    for given in training.data:
        field = f"data (line {training.data_line})"
        if any(character in given for character in "*?["):
            pattern = join(training.directory, given, field=field)
            fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
            within = tree.files(fixed) if tree.has(fixed) else ()
            names = [name for name in within if fnmatch(name, pattern)]
        else:
            path = join(training.directory, given, field=field)
            names = list(tree.files(path)) if tree.has(path) else []
        if not names:
            raise InputError(
                f"{given!r} matches no file in {tree.label}",
                file=training.path,
                field=field,
                fix="commit the data (Git LFS is fine), or correct the path",
            )
        found |= {normalise(name): tree.sha256(name) for name in names}
    return found


def files_in_tree(tree: Tree, config: str, *, allowed_base: str | None) -> dict[str, str]:
    """Every file of this tree that a training run is made from, with its digest; a base model on
    the Hub or elsewhere on this machine is left out.

    Raises:
        InputError: the config cannot be read, or names what is not there.
    """
    training = load_training(tree, config)
    found = dataset_files(training, tree)
    where = base_location(training, tree, allowed_base)
    if isinstance(where, str):
        found |= {f"{where}/{name}": sha for name, sha in model_files(tree, where).items()}
    env = join(training.directory, DEFAULT_NAME)
    if tree.has(env):
        found[env] = tree.sha256(env)
    return found


def dataset_digest(files: Mapping[str, str]) -> str:
    """`dataset_sha`: the file's own SHA-256 when there is one, else `combined`."""
    if len(files) == 1:
        return next(iter(files.values()))
    return combined(files)
