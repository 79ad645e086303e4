"""What a lock pins of a base model: which files, and the digest of each. The dataset's are
`dataset`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from adapterbot.errors import InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.lock.dataset import dataset_paths, is_note
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.environment import DEFAULT_NAME
from adapterbot.lock.hashing import hash_files
from adapterbot.lock.hub import WEIGHT_SUFFIXES, HubRepo, hub_files, refuse_part
from adapterbot.lock.hub_cache import Snapshot
from adapterbot.lock.schema import parse_object
from adapterbot.lock.training import TrainingConfig, load_training

# What transformers can read from a model directory; notes and pictures change nothing.
_SETTING_SUFFIXES = frozenset({".json", ".model", ".txt", ".jinja", ".py", ".tiktoken"})
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_OWN_WEIGHTS = {"model.safetensors", _ADAPTER_WEIGHTS}
MODEL_CONFIG = "config.json"
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def model_file_names(names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    """The files, of all that a model directory or repository holds, which decide what it computes.

    They are those that transformers loads: settings of the top level, and the weights. Where there
    are safetensors of the usual names it looks at no other copy (pickle, GGUF, a vendor's own), and
    so a repository, a full download of it and the client's cache of what it loaded agree. Where
    there are none, every copy counts.

    Args:
        read: the content of one of them; asked for the index of sharded weights, which may name
            any file.

    Raises:
        InputError: the index is broken, or names what is not there.
    """
    present = set(names)
    settings: list[str] = []
    weights: set[str] = set()
    for name in present:
        base = PurePosixPath(name).name.lower()
        if "/" in name or is_note(base):
            continue
        suffix = PurePosixPath(base).suffix
        if suffix in WEIGHT_SUFFIXES:
            weights.add(name)
        elif suffix in _SETTING_SUFFIXES:
            settings.append(name)
    shards = {
        shard
        for index in _INDEXES
        if index in present
        for shard in _shards(read(index), index) & present
    }
    weights |= shards
    if not weights & _OWN_WEIGHTS - {_ADAPTER_WEIGHTS}:
        _all_there(present, read)
    own = {name for name in weights & (_OWN_WEIGHTS | shards) if name.endswith(".safetensors")}
    return sorted([*settings, *(own if own - {_ADAPTER_WEIGHTS} else weights)])


def _all_there(present: set[str], read: Callable[[str], bytes]) -> None:
    """Refuses an index of which a shard is missing, if it is the one that transformers takes."""
    index = next((name for name in _INDEXES if name in present), None)
    for shard in sorted(_shards(read(index), index) - present) if index else ():
        raise InputError(
            f"names {shard}, which is not there", file=index, fix="download the model again"
        )


def _shards(content: bytes, index: str) -> set[str]:
    fix = "save the model again"
    named = parse_object(content, index, fix).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise InputError("must be an object", file=index, field="weight_map", fix=fix)
    return set(named.values())


def model_files(tree: Tree, directory: str, cache: DigestCache | None = None) -> dict[str, str]:
    """Path below `directory` → SHA-256, for every file that is part of the model.

    Raises:
        InputError: the directory holds no model.
    """
    prefix = f"{directory}/" if directory else ""
    found = hash_files(tree, _model_paths(tree, directory), cache)
    return {name.removeprefix(prefix): digest for name, digest in found.items()}


def _model_paths(tree: Tree, directory: str) -> list[str]:
    prefix = f"{directory}/" if directory else ""
    names = model_file_names(
        (name.removeprefix(prefix) for name in tree.files(directory)),
        lambda name: tree.read(prefix + name),
    )
    if MODEL_CONFIG not in names:
        raise InputError(
            f"holds no model in {tree.label} (no config.json)",
            file=directory or ".",
            fix="commit the base model there, or correct `base`",
        )
    return [prefix + name for name in names]


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
                field=training.base_place,
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
            field=training.base_place,
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
            field=training.base_place,
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


def base_files(
    training: TrainingConfig, tree: Tree, allowed: str | None, cache: DigestCache | None = None
) -> dict[str, str]:
    """The files of the base model with their digests.

    Raises:
        InputError: as `base_location` and `model_files`, or the Hub has no such model.
        OurFailure: the Hub did not answer.
    """
    where = base_location(training, tree, allowed)
    if isinstance(where, str):
        return model_files(tree, where, cache)
    if where is None:
        found = hub_files(_on_hub(training), model_file_names, cache)
    elif snapshot := Snapshot.at(where):
        found = snapshot.digests(model_file_names, cache)
    else:
        return model_files(WorkTree(where, label=str(where)), "", cache)
    if MODEL_CONFIG not in found:
        raise InputError(
            f"{training.base!r} holds no config.json",
            file=training.path,
            field=training.base_place,
            fix="name a transformers model",
        )
    return found


def _on_hub(training: TrainingConfig) -> HubRepo:
    return HubRepo(training.base, "model", training.path, training.base_place)


def refuse_part_of_base(training: TrainingConfig, tree: Tree, allowed: str | None) -> None:
    """For a base model of which files are missing and nothing else changed: as `hub.refuse_part`,
    where it is one of the Hub.

    Raises:
        OurFailure: the Hub is silent.
    """
    if base_location(training, tree, allowed) is None:
        refuse_part(_on_hub(training))


# ---------------------------------------------------------------- all of it


def files_in_tree(tree: Tree, config: str, *, allowed_base: str | None) -> set[str]:
    """Every file of this tree that a training run is made from, unread; a base model or a dataset
    on the Hub or elsewhere on this machine is left out.

    Raises:
        InputError: the config cannot be read, or names what is not there.
    """
    training = load_training(tree, config)
    found = set(dataset_paths(training, tree))
    where = base_location(training, tree, allowed_base)
    if isinstance(where, str):
        found.update(_model_paths(tree, where))
    env = join(training.directory, DEFAULT_NAME)
    if tree.has(env):
        found.add(env)
    return found
