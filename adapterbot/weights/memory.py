"""The device's memory, where it ends. (torch)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adapterbot.errors import OurFailure


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
    except torch.OutOfMemoryError as error:
        raise OurFailure(message, file=file, field=field, fix=fix) from error
