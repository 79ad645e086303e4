"""The Git history of an adapter: every commit that changed it is a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.errors import InputError
from adapterbot.files.paths import join, normalise
from adapterbot.files.tree import Tree, WorkTree
from adapterbot.git.checkout import repository_root
from adapterbot.git.commits import resolve_commit
from adapterbot.git.program import git
from adapterbot.git.tree import GitTree
from adapterbot.weights.peft_dir import CONFIG_NAME, WEIGHTS_NAME

SCHEME = "git:"
_SHORT = 9


def commits(tree: Tree, spec: str) -> list[Checkpoint]:
    """The states of an adapter directory up to the tree's commit, oldest first.

    Along the first parents, so that the states follow each other: what a merged branch did on its
    way is one step. A commit that changes neither options nor weights is none.

    Args:
        spec: `git:path`, or `git:path@revision` to begin with the state at a revision.

    Raises:
        InputError: there is no such path or revision, or this clone holds no history.
    """
    path, revision = _parts(spec)
    repository, head = _place(tree)
    files = [f":(literal){join(path, name)}" for name in (CONFIG_NAME, WEIGHTS_NAME)]
    first = resolve_commit(repository, revision) if revision else None
    found = git(
        repository,
        "log",
        "--first-parent",
        "--reverse",
        "-m",
        "--diff-filter=d",  # a commit that takes the adapter away is no checkpoint
        "--name-only",  # nothing is filtered unless something of the difference is shown
        "--format=%x00%H",
        f"{first}..{head}" if first else head,
        "--",
        *files,
    )
    hashes = [entry.partition(b"\n")[0].decode() for entry in found.split(b"\0")[1:]]
    if first:
        hashes.insert(0, first)
    cut = _cut_off(repository)
    if cut and (len(hashes) < 2 or (not first and hashes[0] in cut)):
        # At the cut everything looks as if it had been made there.
        raise InputError(
            "has no more than the end of its history here: the clone is shallow",
            file=spec,
            field="checkpoints",
            fix="set `fetch-depth: 0` in actions/checkout, or run `git fetch --unshallow`",
        )
    return [Checkpoint(path=f"{SCHEME}{path or '.'}@{one}", label=one[:_SHORT]) for one in hashes]


@contextmanager
def opened(tree: Tree, checkpoint: Checkpoint) -> Iterator[Path]:
    """The adapter as it was at a checkpoint's commit, on disk for as long as it is used.

    Raises:
        InputError: it is not there, or a Git LFS pointer whose object is not on this machine.
    """
    path, _ = _parts(checkpoint.path)
    at_commit = tree_at(tree, checkpoint)  # what it writes goes when it does
    yield at_commit.on_disk(path)


def tree_at(tree: Tree, checkpoint: Checkpoint) -> GitTree:
    """All files of a checkpoint's commit."""
    _, commit = _parts(checkpoint.path)
    repository, _ = _place(tree)
    return GitTree(repository, commit or "HEAD")


def _cut_off(repository: Path) -> frozenset[str]:
    """The commits of a shallow clone whose parents it lacks."""
    named = git(repository, "rev-parse", "--git-path", "shallow").decode().rstrip("\n")
    try:
        return frozenset((repository / named).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return frozenset()


def _parts(spec: str) -> tuple[str, str | None]:
    path, _, revision = spec.removeprefix(SCHEME).rpartition("@")
    if not path:
        path, revision = revision, ""
    return normalise(path, field="checkpoints"), revision or None


def _place(tree: Tree) -> tuple[Path, str]:
    if isinstance(tree, GitTree):
        return tree.repository, tree.commit
    if isinstance(tree, WorkTree):
        root = repository_root(tree.root)
        return root, resolve_commit(root, "HEAD")
    raise InputError("has no Git history", file=tree.label, fix="name checkpoints by their paths")
