"""Memory that is used over and over stays with the process: glibc's `mallopt`.

A forward pass frees tensors of a few megabytes and asks for the like again at once. By default
glibc gives them back to the kernel in between, which then has to clear every page anew: a fifth of
the time of a pass of 2,000 positions of a small model.
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>. Blocks up to the one are taken from the heap, whose free end may grow to the other.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 32 * 1024 * 1024
_KEPT = 512 * 1024 * 1024


def keep_freed_memory() -> None:
    """Has this process keep up to half a GiB that it has freed. Does nothing without glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT)
