"""Which layer of a model a module belongs to, by its name; and layers in groups of neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

MOST_GROUPS = 8


def layer_of(module: str) -> int | None:
    """The layer's number in `model.layers.12.mlp.up_proj`; None outside the layers."""
    return next(
        (int(part) for part in module.split(".") if part.isascii() and part.isdigit()), None
    )


def layer_groups(modules: Iterable[str], most: int = MOST_GROUPS) -> tuple[tuple[int, ...], ...]:
    """Neighbouring layers in at most `most` groups of nearly equal size."""
    layers = sorted({layer for module in modules if (layer := layer_of(module)) is not None})
    count = max(1, min(most, len(layers)))
    edges = [round(index * len(layers) / count) for index in range(count + 1)]
    return tuple(tuple(layers[start:stop]) for start, stop in pairwise(edges))


def group_of(module: str, groups: Sequence[Sequence[int]]) -> int:
    """The number of the group that a module's layer is in.

    What comes before the layers goes with the first group, what comes after them with the last.
    """
    layer = layer_of(module)
    if layer is not None:
        return next((i for i, group in enumerate(groups) if layer in group), len(groups) - 1)
    return 0 if "embed" in module or "wte" in module or "wpe" in module else len(groups) - 1
