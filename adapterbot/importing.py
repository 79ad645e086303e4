"""Importing what not everybody has installed, and what lives until the process ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from adapterbot.errors import OurFailure
from adapterbot.files import scratch


@contextmanager
def extras(names: str, purpose: str) -> Iterator[None]:
    """For imports of packages that only extras of ours install.

    Args:
        names: of the extras, with commas between.
        purpose: what the packages are for: "merging", "banks".

    Raises:
        OurFailure: a package is missing, or does not load; or no temporary file can be written,
            which torch needs.
    """
    try:
        yield
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        if isinstance(error, OSError) and scratch.nowhere(error):
            raise scratch.not_written(error) from error
        doctor = "; `adapterbot doctor` tells more" if "eval" in names.split(",") else ""
        raise OurFailure(
            f"the packages for {purpose} do not load: {error}",
            fix=f"pip install 'adapterbot[{names}]'{doctor}",
        ) from error


@contextmanager
def for_good() -> Iterator[None]:
    """For a block that makes hundreds of thousands of objects which are never freed. The collector
    would walk them again and again, for up to a quarter of the time that importing takes.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
