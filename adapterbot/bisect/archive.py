"""Checkpoints of one training run, oldest first, wherever they are kept.

Directories of the repository, the Git history of one (`git:path`), revisions on the Hub
(`hf://org/name`), and whatever fsspec reaches (`s3://bucket/run/*`). Only the base branch's config
or a person's command names an archive; a pull request brings directories, and no URL.
"""

from __future__ import annotations

import functools
import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterbot.bisect import git_history, hub_history, stores
from adapterbot.bisect.checkpoints import (
    TRAINER_STATE,
    Checkpoint,
    check_count,
    global_step,
    label_of,
    named_twice,
    natural,
    told_apart,
)
from adapterbot.bisect.fetched import FetchedDirectories
from adapterbot.changes.conventions import archived
from adapterbot.errors import InputError
from adapterbot.files import there
from adapterbot.files.paths import normalise
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME

_PIECES, _PIECE = 8, 4096  # bytes


class Archive:
    """Finds checkpoints, and puts them on disk one by one.

    Attributes:
        tree: where paths lie, and whose history `git:` is.
    """

    def __init__(self, tree: Tree, cache: Path | None) -> None:
        """
        Args:
            cache: folder in which what was fetched is kept; None where nothing will be.
        """
        self.tree = tree
        self._cache = None if cache is None else FetchedDirectories(cache)

    def find(self, named: Sequence[str]) -> tuple[Checkpoint, ...]:
        """The checkpoints that patterns, histories and URLs name, oldest first.

        In the order of their steps, which `trainer_state.json` says, else of the numbers in their
        names; several names stay in the order in which they are given, unless all steps are known.

        Raises:
            InputError: fewer than two, more than 4096, one is named twice, or there is none.
            OurFailure: a store does not answer.
        """
        found: dict[str, Checkpoint] = {}
        for one in named:
            for checkpoint in self._named(one):
                if checkpoint.path in found:
                    raise named_twice(checkpoint.path)
                found[checkpoint.path] = checkpoint
        check_count(found, ", ".join(named)[:500])
        in_order = list(found.values())
        if len(named) > 1 and all(one.step is not None for one in in_order):
            in_order.sort(key=lambda one: (one.step or 0, natural(one.path)))
        # Otherwise the order in which a person named them is the order in which they were made.
        return told_apart(in_order)

    @contextmanager
    def opened(self, checkpoint: Checkpoint) -> Iterator[Path]:
        """A checkpoint's directory, on disk for as long as it is used.

        Raises:
            InputError: it is missing or not what an adapter's directory may be.
            OurFailure: a store does not answer.
        """
        if checkpoint.path.startswith(git_history.SCHEME):
            with git_history.opened(self.tree, checkpoint) as path:
                yield path
        elif self._cache is not None and stores.is_url(checkpoint.path):
            with stores.opened(checkpoint, self._cache) as path:
                yield path
        else:
            yield self.tree.on_disk(checkpoint.path)

    def tree_at(self, checkpoint: Checkpoint) -> Tree | None:
        """What else was there when a checkpoint of a Git history was made; None for one that is
        kept elsewhere."""
        if not checkpoint.path.startswith(git_history.SCHEME):
            return None
        return git_history.tree_at(self.tree, checkpoint)

    def _named(self, one: str) -> Sequence[Checkpoint]:
        if one.startswith(git_history.SCHEME):
            return git_history.commits(self.tree, one)
        if stores.is_url(one):
            return hub_history.find(one)
        return _directories(self.tree, one)


def is_elsewhere(named: str) -> bool:
    """Whether an archive is named by a history or a URL, and not by a path."""
    return named.startswith(git_history.SCHEME) or stores.is_url(named)


def _directories(tree: Tree, pattern: str) -> list[Checkpoint]:
    """The adapter directories of a tree that one pattern matches, sorted by step."""
    wanted = normalise(pattern, field="checkpoints")
    matched = archived(tree.survey(), wanted)
    if not matched:
        raise InputError(
            f"matches no adapter directory in {tree.label}",
            file=pattern,
            field="checkpoints",
            fix="name checkpoints, the folder that holds them, or a pattern such as runs/*",
        )
    steps = {path: _step(tree, path) for path in matched}
    return [
        Checkpoint(
            path=path,
            label=label_of(path),
            step=steps[path],
            looks=_looks(tree.root / path) if isinstance(tree, WorkTree) else "",
        )
        for path in _in_order(matched, steps.__getitem__)
    ]


def named_checkpoints(arguments: Sequence[str], directory: Path) -> tuple[Checkpoint, ...]:
    """Checkpoints for a command, which may be anything that has a path.

    What exists under its name is taken as it was named, oldest first. One pattern is expanded, and
    a folder that is named alone, in the order of the steps in `trainer_state.json`, or else of the
    numbers in the names: to its adapter directories, where it has any.

    Raises:
        InputError: one is missing or named twice, or there are fewer than two or more than 4096.
        OSError: one may not look.
    """
    found: list[str] = []
    # A trainer's state is megabytes of its log.
    step_of = functools.cache(lambda path: _step_on_disk(directory / path))
    for argument in arguments:
        inside = _adapters(directory, f"{glob.escape(argument)}/*") if len(arguments) == 1 else []
        if inside and not there.exists(directory / argument / CONFIG_NAME):
            found += _in_order(inside, step_of)
            continue
        # A link to nothing is an error of the command's.
        if there.is_symlink(directory / argument) or there.exists(directory / argument):
            found.append(argument)
            continue
        matched = _adapters(directory, argument) or _matched(directory, argument)
        if not matched:
            raise InputError(
                "does not exist", file=argument, field="checkpoints", fix="correct its path"
            )
        found += _in_order(matched, step_of)
    seen: set[Path] = set()
    for path in found:
        place = there.real(directory / path)
        if place in seen:
            raise named_twice(path)
        seen.add(place)
    check_count(found, ", ".join(arguments)[:500])
    return told_apart(
        [
            Checkpoint(
                path=path,
                label=label_of(path),
                step=step_of(path),
                looks=_looks(directory / path),
            )
            for path in found
        ]
    )


def _looks(place: Path) -> str:
    """Digest of the size and of pieces of the weights, which are too large to be read whole of
    every checkpoint. Not their time: a copy, or another checkout, is what was trained then."""
    for file in (place / WEIGHTS_NAME, place):
        with suppress(OSError):
            if file.is_file():
                size = file.stat().st_size
                found = hashlib.sha256(str(size).encode())
                with file.open("rb") as stream:
                    for piece in range(_PIECES):
                        stream.seek(max(size - _PIECE, 0) * piece // (_PIECES - 1))
                        found.update(stream.read(_PIECE))
                return found.hexdigest()
    return ""


def _in_order(paths: Sequence[str], step_of: Callable[[str], int | None]) -> list[str]:
    """By their steps, if all have one: a number in a name is no step. Else by their names."""
    paths = sorted(paths, key=natural)
    steps = [step for step in map(step_of, paths) if step is not None]
    if len(steps) < len(paths):
        return paths
    return [path for _, path in sorted(zip(steps, paths, strict=True), key=lambda one: one[0])]


def _matched(directory: Path, pattern: str) -> list[str]:
    """What a pattern matches; a link to another match, such as `latest`, is none of its own."""
    found = glob.glob(pattern, root_dir=directory)  # noqa: PTH207 - Path.glob makes names over
    links = [path for path in found if (directory / path).is_symlink()]
    known = {there.real(directory / path) for path in set(found).difference(links)}
    return [p for p in found if p not in links or there.real(directory / p) not in known]


def _adapters(directory: Path, pattern: str) -> list[str]:
    matched = _matched(directory, pattern)
    return [path for path in matched if (directory / path / CONFIG_NAME).is_file()]


def _step_on_disk(place: Path) -> int | None:
    state = place / TRAINER_STATE
    try:
        text = state.read_bytes() if state.is_file() else b""
    except OSError:
        text = b""
    return global_step(text, str(state)) if text else None


def _step(tree: Tree, path: str) -> int | None:
    state = f"{path}/{TRAINER_STATE}"
    if not tree.has(state):
        return None
    return global_step(tree.read(state), state)
