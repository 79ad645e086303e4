"""Importing what lives until the process ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def for_good() -> Iterator[None]:
    """Hundreds of thousands of objects are made in this block that are never let go. Left to the
    collector they are walked again and again: up to a quarter of the time that importing takes.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
