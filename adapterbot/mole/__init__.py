"""Mixture of LoRAs: a gate routes every token to a few of N frozen adapters, in one pass.

What needs torch is loaded on first use, so that a configuration is checked without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterbot.mole.artifact import load_mixture
    from adapterbot.mole.mixture import Mixture

__all__ = ["Mixture", "load_mixture"]

_NEEDS_TORCH = {
    "Mixture": "adapterbot.mole.mixture",
    "load_mixture": "adapterbot.mole.artifact",
}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
