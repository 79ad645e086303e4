"""The decoder layers of a model that experts adapt: where a gate can look, and where it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from adapterbot.errors import InputError
from adapterbot.weights.adapter import Adapter

# `model.layers.3.self_attn.q_proj` lies in the decoder layer `model.layers.3`.
_IN_LAYER = re.compile(r"(.*?\.(\d+))\.")


def check_routable(adapter: Adapter) -> None:
    """Refuses an expert that reaches outside the decoder layers, or replaces whole parameters.

    Raises:
        InputError: it does.
    """
    shown = adapter.files.weights_shown
    for name, update in adapter.updates.items():
        if update.embedding or not _IN_LAYER.match(f"{name}."):
            raise InputError(
                "lies outside the decoder layers, where no gate looks",
                file=shown,
                field=name,
                fix="train the expert with target_modules inside the layers",
            )
    if adapter.replaced:
        raise InputError(
            "replaces whole parameters, which cannot differ from token to token",
            file=shown,
            field=next(iter(adapter.replaced)),
            fix="train the expert without bias and modules_to_save",
        )


def path_and_index(name: str) -> tuple[str, int]:
    """The path and the index of the decoder layer that a module of a routable expert lies in."""
    found = _IN_LAYER.match(f"{name}.")
    assert found is not None, name  # noqa: S101 check_routable has seen every name
    return found[1], int(found[2])


def layers_of(model: nn.Module, experts: Iterable[Adapter]) -> dict[int, nn.Module]:
    """The decoder layers that the experts touch, by index, in order.

    Raises:
        InputError: an expert reaches into two stacks of them.
    """
    paths: dict[int, str] = {}
    for adapter in experts:
        for path, index in map(path_and_index, adapter.updates):
            if paths.setdefault(index, path) != path:
                raise InputError(
                    f"adapts {' and '.join(sorted({path, paths[index]}))}, layers of two stacks",
                    file=adapter.files.weights_shown,
                    fix="train the expert with target_modules of the text's layers alone",
                )
    return {index: model.get_submodule(paths[index]) for index in sorted(paths)}
