"""Mixture of LoRAs: a gate routes every token to a few of N frozen adapters, in one pass.

What needs torch is loaded on first use, so that a configuration is checked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.late import late

if TYPE_CHECKING:
    from adapterbot.mole.artifact import load_mixture
    from adapterbot.mole.mixture import Mixture
    from adapterbot.weights.mixture_config import GateConfig

__all__ = ["GateConfig", "Mixture", "load_mixture"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(
        __name__,
        {
            "GateConfig": "adapterbot.weights.mixture_config",
            "Mixture": "adapterbot.mole.mixture",
            "load_mixture": "adapterbot.mole.artifact",
        },
    )
