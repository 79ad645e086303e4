"""Reviewable pull requests for LoRA adapters.

What Python is promised is each package's `__all__`, beginning with this one's (docs/python.md). A
package is loaded when it is first named, and torch when something needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterbot.late import late

if TYPE_CHECKING:
    from adapterbot import (
        bank,
        bisect,
        delta,
        errors,
        lock,
        merge,
        mole,
        records,
        verdict,
        weights,
    )

__all__ = [
    "bank",
    "bisect",
    "delta",
    "errors",
    "lock",
    "merge",
    "mole",
    "records",
    "verdict",
    "weights",
]

__version__ = "0.1.0"

TOOL = f"adapterbot {__version__}"
"""What writes a file, as the file says."""

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, {name: f"{__name__}.{name}" for name in __all__})
