"""`adapterbot diff` and `adapterbot scan`: adapters looked at without running them."""

from __future__ import annotations

from pathlib import Path

from adapterbot.errors import OurFailure
from adapterbot.records.inspection import AdapterDiff, ScanReport


def diff(a: Path, b: Path) -> AdapterDiff:
    """How far apart two adapters are.

    Raises:
        InputError: one of them is not a plain LoRA adapter, or they have different bases.
        OurFailure: torch is not installed.
    """
    try:
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.inspection import compare
    except ImportError as error:
        raise _lacking(error) from error
    return compare(open_adapter(a), open_adapter(b))


def scan(adapter: Path, base: str | None) -> ScanReport:
    """What is wrong with an adapter.

    Raises:
        InputError: there is no such directory.
        OurFailure: torch is not installed.
    """
    try:
        from adapterbot.weights.inspection import scan as look
    except ImportError as error:
        raise _lacking(error) from error
    return look(adapter, base=base)


def _lacking(error: ImportError) -> OurFailure:
    return OurFailure(
        f"the packages for reading weights do not load: {error}",
        fix="pip install 'adapterbot[eval]'; `adapterbot doctor` tells more",
    )
