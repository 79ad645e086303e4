"""The adapters that a mixture consists of, by what a tree holds of it."""

from __future__ import annotations

from adapterbot.changes.conventions import MIXTURE_CONFIG
from adapterbot.errors import InputError
from adapterbot.files.paths import join
from adapterbot.files.tree import Tree
from adapterbot.weights.mixture_config import parse_manifest


def experts(tree: Tree, path: str) -> tuple[str, ...]:
    """Where the experts of a mixture lie; none where it is no mixture.

    Raises:
        InputError: its config cannot be read.
    """
    name = join(path, MIXTURE_CONFIG)
    if not tree.has(name):
        return ()
    manifest = parse_manifest(tree.read(name), name)
    return tuple(
        join(path, expert.path, field=f"experts.{expert.name}") for expert in manifest.experts
    )


def readable_experts(tree: Tree, path: str) -> tuple[str, ...]:
    """As `experts`; none where its config cannot be read: judging the mixture says why."""
    try:
        return experts(tree, path)
    except InputError:
        return ()
