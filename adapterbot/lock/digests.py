"""What a lock pins of a base model and of a dataset: which files, and the digest of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from posixpath import relpath

from adapterbot.errors import InputError
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.environment import DEFAULT_NAME
from adapterbot.lock.hashing import combined, hash_files
from adapterbot.lock.schema import parse_object
from adapterbot.lock.training import Named, TrainingConfig, load_training
from adapterbot.tree import Tree, WorkTree, join, normalise

# What transformers can read from a model directory; notes and pictures change nothing.
_SETTING_SUFFIXES = frozenset({".json", ".model", ".txt", ".jinja", ".py", ".tiktoken"})
_WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_NOTES = ("readme*", "license*", "notice*", "usage*", "training_args*", "trainer_state*")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_OWN_WEIGHTS = {"model.safetensors", _ADAPTER_WEIGHTS}
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?")
_PATTERN = re.compile(r"[*?\[]")
_DATA_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt"})


# ---------------------------------------------------------------- base model


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
        InputError: the index is broken.
    """
    present = set(names)
    settings: list[str] = []
    weights: set[str] = set()
    for name in present:
        base = PurePosixPath(name).name.lower()
        if "/" in name or base.startswith(".") or any(fnmatch(base, note) for note in _NOTES):
            continue
        suffix = PurePosixPath(base).suffix
        if suffix in _WEIGHT_SUFFIXES:
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
    own = {name for name in weights & (_OWN_WEIGHTS | shards) if name.endswith(".safetensors")}
    return sorted([*settings, *(own if own - {_ADAPTER_WEIGHTS} else weights)])


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
    names = model_file_names(
        (name.removeprefix(prefix) for name in tree.files(directory)),
        lambda name: tree.read(prefix + name),
    )
    if "config.json" not in names:
        raise InputError(
            f"holds no model in {tree.label} (no config.json)",
            file=directory or ".",
            fix="commit the base model there, or correct `base`",
        )
    found = hash_files(tree, (prefix + name for name in names), cache)
    return {name.removeprefix(prefix): digest for name, digest in found.items()}


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
    from adapterbot.lock.hub import HubRepo, Snapshot, hub_files

    field = f"base (line {training.base_line})"
    if where is None:
        repo = HubRepo(training.base, "model", training.path, field)
        found = hub_files(repo, model_file_names, cache)
    elif snapshot := Snapshot.at(where):
        found = snapshot.digests(model_file_names, cache)
    else:
        return model_files(WorkTree(where, label=str(where)), "", cache)
    if "config.json" not in found:
        raise InputError(
            f"{training.base!r} holds no config.json",
            file=training.path,
            field=field,
            fix="name a transformers model",
        )
    return found


# ---------------------------------------------------------------- dataset


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset with their digests.

    Attributes:
        files: path in the tree, or `org/name/…` on the Hub → SHA-256.
        relative: path → the path as seen from soup.yaml. These go into the digest, so that a lock
            does not depend on where in a checkout the project lies.
        named: path → the entry of soup.yaml that names it.
    """

    files: Mapping[str, str]
    relative: Mapping[str, str]
    named: Mapping[str, Named]

    @property
    def by_relative_path(self) -> dict[str, str]:
        """Path as seen from soup.yaml → SHA-256."""
        return {self.relative[path]: digest for path, digest in self.files.items()}

    @property
    def digest(self) -> str:
        """`dataset_sha`: the file's own SHA-256 when there is one, else `combined`."""
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        return combined(self.by_relative_path)


def dataset_files(
    training: TrainingConfig, tree: Tree, cache: DigestCache | None = None
) -> DatasetFiles:
    """Every file that the data section names, with its digest.

    Raises:
        InputError: one of them does not exist, or a pattern matches nothing.
        OurFailure: the Hub did not answer.
    """
    named: dict[str, Named] = {}
    remote: dict[str, str] = {}
    for entry in training.entries:
        names = _names_in_tree(training, tree, entry)
        if not names and _on_hub(entry.text):
            digests = _hub_dataset(training, entry, cache)
            remote |= digests
            names = list(digests)
        if not names:
            raise InputError(
                f"{entry.text!r} matches no file in {tree.label}",
                file=training.path,
                field=entry.place,
                fix="commit the data (Git LFS is fine), or correct the path",
            )
        for name in names:
            named.setdefault(name, entry)
    local = hash_files(tree, (name for name in named if name not in remote), cache)
    relative = {name: relpath(name, training.directory or ".") for name in local}
    return DatasetFiles({**local, **remote}, {**relative, **{n: n for n in remote}}, named)


def dataset_paths(training: TrainingConfig, tree: Tree) -> tuple[str, ...]:
    """The files in the tree that the data section names, unread; what is not there is left out."""
    found: dict[str, None] = {}
    for entry in training.entries:
        found |= dict.fromkeys(_names_in_tree(training, tree, entry))
    return tuple(found)


def names_file(training: TrainingConfig, entry: Named, relative: str) -> bool:
    """Whether an entry names a file, or would if it were there, by its path as seen from
    soup.yaml."""
    path = join(training.directory, entry.text, field=entry.place).split("/")
    file = normalise(f"{training.directory}/{relative}".removeprefix("/")).split("/")
    inside = not _PATTERN.search(entry.text) and file[: len(path)] == path
    return inside or _matches(file, path)


def _names_in_tree(training: TrainingConfig, tree: Tree, entry: Named) -> list[str]:
    path = join(training.directory, entry.text, field=entry.place)
    if not _PATTERN.search(entry.text):
        return [normalise(name) for name in tree.files(path)] if tree.has(path) else []
    fixed = _PATTERN.split(path, maxsplit=1)[0].rpartition("/")[0]
    within = tree.files(fixed) if tree.has(fixed) else ()
    pattern = path.split("/")
    return [name for name in within if _matches(name.split("/"), pattern)]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """As a shell matches: `*` stays within a folder, `**` is any number of folders.

    Piece by piece, with all places that the pieces so far may end at: to try one way after another
    takes longer than anybody lives where a stranger writes ten of `**`.
    """
    ends = {0}
    for piece in pattern:
        if piece == "**":
            ends = set(range(min(ends, default=len(parts) + 1), len(parts) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(parts) and fnmatch(parts[end], piece)}
    return len(parts) in ends


def _on_hub(text: str) -> bool:
    """Whether a name can be a dataset of the Hub: `org/name@revision`, no suffix of a data file."""
    is_file = PurePosixPath(text.partition("@")[0]).suffix in _DATA_SUFFIXES
    return not is_file and _HUB_ID.fullmatch(text) is not None


def _hub_dataset(
    training: TrainingConfig, entry: Named, cache: DigestCache | None
) -> dict[str, str]:
    from adapterbot.lock.hub import HubRepo, hub_files

    repo = HubRepo(entry.text, "dataset", training.path, entry.place)
    found = hub_files(repo, lambda names, _: sorted(_data_names(names)), cache)
    return {f"{repo.name}/{name}": digest for name, digest in found.items()}


def _data_names(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        base = PurePosixPath(name).name.lower()
        if not base.startswith(".") and not any(fnmatch(base, note) for note in _NOTES):
            yield name


# ---------------------------------------------------------------- all of it


def files_in_tree(tree: Tree, config: str, *, allowed_base: str | None) -> dict[str, str]:
    """Every file of this tree that a training run is made from, with its digest; a base model or a
    dataset on the Hub or elsewhere on this machine is left out.

    Raises:
        InputError: the config cannot be read, or names what is not there.
    """
    training = load_training(tree, config)
    found = hash_files(tree, dataset_paths(training, tree))
    where = base_location(training, tree, allowed_base)
    if isinstance(where, str):
        found |= {f"{where}/{name}": sha for name, sha in model_files(tree, where).items()}
    env = join(training.directory, DEFAULT_NAME)
    if tree.has(env):
        found[env] = tree.sha256(env)
    return found
