"""What a lock pins of a dataset: which files, and the digest of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from posixpath import relpath

from adapterbot.errors import InputError
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import Tree
from adapterbot.lock.digest_cache import DigestCache
from adapterbot.lock.hashing import combined, hash_files
from adapterbot.lock.hub import HubRepo, hub_files, refuse_part
from adapterbot.lock.training import Named, TrainingConfig

_NOTES = ("readme*", "license*", "notice*", "usage*", "training_args*", "trainer_state*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?")
_PATTERN = re.compile(r"[*?\[]")
_DATA_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt"})


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a dataset with their digests.

    Attributes:
        files: path in the tree, or `org/name/…` on the Hub → SHA-256; `org/name@revision/…` where
            the other could be taken for another file.
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
    on_hub: list[Named] = []
    for entry in training.entries:
        names = _names_in_tree(training, tree, entry)
        if not names and not _on_hub(entry.text):
            raise _matches_none(training, tree, entry)
        for name in names:
            named.setdefault(name, entry)
        if not names:
            on_hub.append(entry)
    local = hash_files(tree, named, cache)
    relative = {name: relpath(name, training.directory or ".") for name in local}
    remote: dict[str, str] = {}
    revisions = Counter(_repository(text) for text in {entry.text for entry in on_hub})
    for entry in on_hub:
        digests = _hub_dataset(training, entry, cache)
        if not digests:
            raise _matches_none(training, tree, entry)
        found = {f"{_repository(entry.text)}/{name}": sha for name, sha in digests.items()}
        # Two revisions of one dataset, or a folder of its name, have other files by these names.
        if revisions[_repository(entry.text)] > 1 or found.keys() & {*local, *relative.values()}:
            found = {f"{entry.text}/{name}": sha for name, sha in digests.items()}
        remote |= found
        named = dict.fromkeys(found, entry) | named
    return DatasetFiles({**local, **remote}, {**relative, **{n: n for n in remote}}, named)


def refuse_part_of_data(training: TrainingConfig, tree: Tree, missing: Iterable[str]) -> None:
    """For files of which some are missing and nothing else changed: as `hub.refuse_part`, where
    they were a data set's of the Hub.

    Raises:
        OurFailure: the Hub is silent.
    """
    names = tuple(missing)
    for entry in training.entries:
        of_it = (f"{_repository(entry.text)}/", f"{entry.text}/")
        if _names_in_tree(training, tree, entry) or not any(n.startswith(of_it) for n in names):
            continue
        refuse_part(HubRepo(entry.text, "dataset", training.path, entry.place))


def _matches_none(training: TrainingConfig, tree: Tree, entry: Named) -> InputError:
    return InputError(
        f"{entry.text!r} matches no file in {tree.label}",
        file=training.path,
        field=entry.place,
        fix="commit the data (Git LFS is fine), or correct the path",
    )


def dataset_paths(training: TrainingConfig, tree: Tree) -> tuple[str, ...]:
    """The files in the tree that the data section names, unread; what is not there is left out."""
    found: dict[str, None] = {}
    for entry in training.entries:
        found |= dict.fromkeys(_names_in_tree(training, tree, entry))
    return tuple(found)


def names_file(training: TrainingConfig, entry: Named, relative: str) -> bool:
    """Whether an entry names a file, or would if it were there, by its path as seen from
    soup.yaml."""
    named = join(training.directory, entry.text, field=entry.place)
    path = named.split("/") if named else []  # the root, of which every file is
    file = normalise(f"{training.directory}/{relative}".removeprefix("/")).split("/")
    if _PATTERN.search(entry.text):
        return _matches(file, path)
    return file[: len(path)] == path and not any(map(_is_hidden, file[len(path) :]))


def _names_in_tree(training: TrainingConfig, tree: Tree, entry: Named) -> list[str]:
    path = join(training.directory, entry.text, field=entry.place)
    if not _PATTERN.search(entry.text):
        names = [normalise(name) for name in tree.files(path)] if tree.has(path) else []
        return [name for name in names if not any(map(_is_hidden, name[len(path) :].split("/")))]
    fixed = _PATTERN.split(path, maxsplit=1)[0].rpartition("/")[0]
    within = tree.files(fixed) if tree.has(fixed) else ()
    pattern = path.split("/")
    return [name for name in within if _matches(name.split("/"), pattern)]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """As a shell matches: `*` stays within a folder, `**` is any number of folders, and neither
    stands for what is hidden.

    Piece by piece, with all places that the pieces so far may end at: to try one way after another
    takes longer than anybody lives where a stranger writes ten of `**`.
    """
    ends = {0}
    for piece in pattern:
        if piece == "**":
            for end, part in enumerate(parts):
                if end in ends and not _is_hidden(part):
                    ends.add(end + 1)
        else:
            ends = {
                end + 1
                for end in ends
                if end < len(parts)
                and fnmatch(parts[end], piece)
                and (_is_hidden(piece) or not _is_hidden(parts[end]))
            }
    return len(parts) in ends


def _is_hidden(name: str) -> bool:
    """Whether a desktop, an editor or Git wrote it there, and no trainer reads it: `.DS_Store`."""
    return name.startswith(".")


def _on_hub(text: str) -> bool:
    """Whether a name can be a dataset of the Hub: `org/name@revision`, no suffix of a data file."""
    is_file = PurePosixPath(_repository(text)).suffix in _DATA_SUFFIXES
    return not is_file and _HUB_ID.fullmatch(text) is not None


def _repository(text: str) -> str:
    """The name of a dataset on the Hub without its revision."""
    return text.partition("@")[0]


def _hub_dataset(
    training: TrainingConfig, entry: Named, cache: DigestCache | None
) -> dict[str, str]:
    repo = HubRepo(entry.text, "dataset", training.path, entry.place)
    return hub_files(repo, lambda names, _: sorted(_data_names(names)), cache)


def _data_names(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        path = PurePosixPath(name.lower())
        # Data may be of licences and of usage.
        is_data = path.suffix in _DATA_SUFFIXES - {".txt"} and not _is_hidden(path.name)
        if is_data or not is_note(path.name):
            yield name


def is_note(base: str) -> bool:
    """Whether a file's name, in lower case, is that of something for people, or of a tool's."""
    return base.startswith(".") or any(fnmatch(base, note) for note in _NOTES)
