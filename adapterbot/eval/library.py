"""transformers, imported whole and no slower than it must be."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

# transformers loads its parts when they are first named; we name them here, so that loading a
# model takes the time of the model and not that of the library.
_PARTS = (
    "modeling_utils",
    "loss.loss_utils",
    "models.auto.modeling_auto",
    "models.auto.tokenization_auto",
)


def import_library() -> None:
    """Imports what loading and running a model takes.

    Raises:
        ImportError, OSError: it is not installed, or does not load.
    """
    importlib.import_module("transformers")
    _read_models_once()
    for part in _PARTS:
        importlib.import_module(f"transformers.{part}")
    library_logs = importlib.import_module("transformers.utils.logging")
    library_logs.disable_default_handler()
    library_logs.enable_propagation()


def _read_models_once() -> None:
    """Gives the package `transformers.models` what `transformers` already knows of it.

    Both find out what there is to import by reading each of the two thousand files below `models`,
    a third of a second each time. The function that does so remembers its answers, but the two
    ask in different words.
    """
    if "transformers.models" in sys.modules:
        return
    from transformers.utils import import_utils

    read = import_utils.define_import_structure
    models = Path(import_utils.__file__).parents[1] / "models"

    def define_import_structure(module_path: str | Path, prefix: str | None = None) -> Any:
        if prefix is not None or Path(module_path) != models / "__init__.py":
            return read(module_path, prefix)
        return {
            needed: {
                name.removeprefix("models."): objects
                for name, objects in modules.items()
                if name.startswith("models.")
            }
            for needed, modules in read(models, prefix="models").items()
        }

    import_utils.define_import_structure = define_import_structure
