"""Merge: search over the weights with which adapters are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.late import late

if TYPE_CHECKING:
    from adapterbot.merge.cmaes import CMAES

__all__ = ["CMAES"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, {"CMAES": "adapterbot.merge.cmaes"})
