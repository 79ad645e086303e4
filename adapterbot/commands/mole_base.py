"""The base model that a mixture goes over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterbot.eval.base_model import BaseModel


def load(base: str | Path, device: str | None) -> BaseModel:
    """A base model, as the gate loads it."""
    from adapterbot.commands.evaluator import import_engine
    from adapterbot.eval.settings import engine_settings

    settings = engine_settings(None, device=device)
    import_engine(settings)

    from adapterbot.eval.base_model import load_base

    return load_base(base, settings)


def base_beside(folder: Path, base: str) -> str | Path:
    """A directory beside the configuration, or a model's id on the Hub."""
    local = folder / base
    return local if local.is_dir() else base
