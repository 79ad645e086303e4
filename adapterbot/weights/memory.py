"""The device's memory, where it ends. (torch)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adapterbot.errors import OurFailure

# Where it is not torch's own allocator that finds no room: CUDA's libraries for their handles and
# workspaces (cuBLAS, cuDNN, whose version 9 says …_ALLOCATION_FAILED), the driver, and a CPU.
_ENDED = re.compile(
    "CUDA error: out of memory|_STATUS_(ALLOC|[A-Z_]+_ALLOCATION)_FAILED"
    "|DefaultCPUAllocator: (can't allocate|not enough) memory"
)


def memory_ended(error: BaseException) -> bool:
    """Whether it says that there is too little memory, whoever noticed it."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _ENDED.search(str(error)) is not None
    )


@contextmanager
def fitting(
    message: str, *, fix: str, file: str | None = None, field: str | None = None
) -> Iterator[None]:
    """Says what did not fit when the device's memory ends inside.

    Raises:
        OurFailure: with these words.
    """
    try:
        yield
    except RuntimeError as error:
        if not memory_ended(error):
            raise
        raise OurFailure(message, file=file, field=field, fix=fix) from error
