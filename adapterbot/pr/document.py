"""The document itself: the adapter on disk, checked and digested, with what is said about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adapterbot import TOOL
from adapterbot.config import key_of
from adapterbot.errors import InputError
from adapterbot.files.paths import normalise
from adapterbot.files.tree import WorkTree, link_refused
from adapterbot.pr.jsonfile import whole
from adapterbot.records import (
    AdapterPullRequest,
    AdapterWeights,
    DatasetDiff,
    EvalDelta,
    SampleChange,
    WeightsFile,
)
from adapterbot.weights.peft_dir import adapter_digest, read_adapter_dir

MAX_TITLE = 256
MAX_FILES = 1000
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_BRANCH = re.compile(r"(?!-)(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9._/-]{1,200}(?<![./])")


@dataclass(frozen=True)
class Evidence:
    """What is known of the adapter's effect, and where from."""

    deltas: tuple[EvalDelta, ...] = ()
    samples: tuple[SampleChange, ...] = ()
    dataset_diff: DatasetDiff | str | None = None
    notes: tuple[str, ...] = ()


def document(
    title: str, base_sha: str, directory: Path, shown: str, evidence: Evidence
) -> AdapterPullRequest:
    """The pull request of the adapter in `directory`.

    Args:
        title: one line of at most 256 characters.
        base_sha: 40 or 64 hex digits: a commit, or a digest of the base model, as Soup has it.
        shown: where a reader finds it: a path of the repository.

    Raises:
        InputError: the title or SHA is none, or the adapter is missing, unsafe or broken.
    """
    title, base_sha = checked_title(title), checked_sha(base_sha)
    return described(title, base_sha, *adapter_weights(directory, shown), evidence=evidence)


def described(
    title: str,
    base_sha: str,
    weights: AdapterWeights,
    notes: tuple[str, ...],
    evidence: Evidence,
) -> AdapterPullRequest:
    """The document about weights that were looked at already, with checked title and SHA."""
    return AdapterPullRequest(
        tool=TOOL,
        title=title,
        base_sha=base_sha,
        adapter=weights,
        dataset_diff=evidence.dataset_diff,
        deltas=evidence.deltas,
        samples=evidence.samples,
        notes=(*evidence.notes, *notes)[:64],
    )


def adapter_weights(directory: Path, shown: str) -> tuple[AdapterWeights, tuple[str, ...]]:
    """What the adapter is, with the digest of each file that belongs to it; and what was left out.

    Raises:
        InputError: it is missing, unsafe or broken, or holds too many files.
    """
    files = read_adapter_dir(directory, shown=shown)
    names, notes = adapter_files(directory, shown)
    tree = WorkTree(directory)
    weights = AdapterWeights(
        path=shown[:2000],
        digest=adapter_digest(directory),
        kind=files.config.peft_type,
        base_model=files.config.base_model_name_or_path,
        parameters=files.header.parameters,
        files=tuple(
            WeightsFile(
                name=name[:2000],
                size=(directory / name).stat().st_size,
                sha256=tree.sha256(name),
            )
            for name in names
        ),
    )
    return weights, notes


def adapter_files(directory: Path, shown: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files that make up the adapter, and notes on what in the directory does not.

    A trainer leaves pickles and checkpoints of its own beside the adapter: they are no part of it,
    and a pickle runs code in whoever opens it.

    Raises:
        InputError: one is a symbolic link or has no printable name, or there are too many.
    """
    here = sorted(directory.iterdir())
    for path in here:
        if path.is_symlink():
            raise link_refused(f"{shown}/{path.name}")
        if not path.name.isprintable():
            raise InputError(
                "has a file name that cannot be printed",
                file=shown,
                field=ascii(path.name)[1:-1][:200],
                fix="rename the file",
            )
    files = [path.name for path in here if path.is_file()]
    kept = tuple(name for name in files if is_adapter_file(name))
    pickles = [name for name in files if _is_pickle(name)]
    folders = [path.name for path in here if path.is_dir() and not path.name.startswith(".")]
    if len(kept) > MAX_FILES:
        raise InputError(
            f"holds {len(kept):,} files, more than {MAX_FILES:,}",
            file=shown,
            fix="name the adapter's own directory",
        )
    notes = tuple(
        f"{what} left out: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"[:2000]
        for what, names in (("pickles", pickles), ("folders", folders))
        if names
    )
    return kept, notes


def is_adapter_file(name: str) -> bool:
    """Whether a file directly in an adapter's directory is part of it, by its name."""
    return not (name.startswith(".") or _is_pickle(name))


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _PICKLES


def checked_title(title: str) -> str:
    """One line with something in it.

    Raises:
        InputError: it is empty or too long.
    """
    line = " ".join(whole(title).split())
    if not line or len(line) > MAX_TITLE:
        raise InputError(
            f"is {len(line):,} characters long" if line else "is empty",
            field="title",
            fix=f"write 1 to {MAX_TITLE} characters",
        )
    return line


def checked_sha(sha: str) -> str:
    """40 or 64 lowercase hex digits.

    Raises:
        InputError: it is something else.
    """
    lowered = sha.strip().lower()
    if not _SHA.fullmatch(lowered):
        raise InputError(
            f"{sha[:80]!r} is not a SHA",
            field="--base-sha",
            fix="give the 40 or 64 hex digits in full: `git rev-parse HEAD`, or a lock's base",
        )
    return lowered


def branch_of(path: str) -> str:
    """The branch on which the adapter at `path` is proposed, the same every time."""
    name = re.sub(r"\.{2,}", ".", key_of(path)).removesuffix(".lock").strip(".-")
    return f"adapterbot/{name or 'adapter'}"


def checked_branch(name: str, field: str = "--branch") -> str:
    """A branch name of plain characters.

    Raises:
        InputError: Git or a reader could take it for something else.
    """
    if not _BRANCH.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} is not a branch name that we use",
            field=field,
            fix="use letters, digits, '.', '_', '-' and '/'",
        )
    return name


def inside(directory: Path, root: Path, given: str | None) -> str:
    """Where in the repository the adapter goes: as asked, or where it lies.

    Raises:
        InputError: it lies elsewhere and nobody said where it goes.
    """
    if given is not None:
        path = normalise(given, field="--path")
    else:
        try:
            path = directory.resolve().relative_to(root.resolve()).as_posix()
        except ValueError as error:
            raise InputError(
                "lies outside the repository",
                file=str(directory),
                field="--adapter",
                fix="say where it goes with --path, e.g. --path adapters/merged",
            ) from error
    if path in ("", ".") or PurePosixPath(path).parts[0] == ".git":
        raise InputError(
            "is not a folder for an adapter", file=path or ".", field="--path", fix="name a folder"
        )
    return path
