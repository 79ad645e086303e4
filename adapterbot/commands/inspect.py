"""`adapterbot diff` and `adapterbot scan`: adapters looked at without running them."""

from __future__ import annotations

from pathlib import Path

from adapterbot.commands.base_option import refuse_missing
from adapterbot.importing import extras
from adapterbot.records.inspection import AdapterDiff, ScanReport
from adapterbot.weights.peft_dir import read_adapter_dir, refuse_no_adapter


def diff(a: Path, b: Path) -> AdapterDiff:
    """How far apart two adapters are.

    Raises:
        InputError: one of them is not a plain LoRA adapter, or they have different bases.
        OurFailure: torch is not installed.
    """
    found = [read_adapter_dir(path) for path in (a, b)]  # before torch, which takes seconds
    with extras("eval", "reading weights"):
        from adapterbot.weights.adapter import open_adapter
        from adapterbot.weights.inspection import compare
    return compare(*map(open_adapter, found))


def scan(adapter: Path, base: str | None) -> ScanReport:
    """What is wrong with an adapter.

    Raises:
        InputError: there is no such directory, or no such base.
        OurFailure: torch is not installed.
    """
    if base:
        refuse_missing(base)
    refuse_no_adapter(adapter)
    with extras("eval", "reading weights"):
        from adapterbot.weights.inspection import scan as look
    return look(adapter, base=base)
