"""What a gate is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterbot.publishing import USUAL, Publishing


@dataclass(frozen=True)
class GateOptions:
    """What was asked on the command line or through the action's inputs."""

    base: str | None = None
    head: str | None = None
    config: str | None = None
    adapter: str | None = None
    suite: str | None = None
    baseline: str | None = None
    checkpoints: str | None = None
    device: str | None = None
    engine: tuple[str, ...] = ()
    out: Path | None = None
    publishing: Publishing | None = USUAL
    sequential: bool = False
    server: str | None = None
    ray: str | None = None
