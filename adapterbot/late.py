"""Names that a package offers and loads on first use, so that importing it costs nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def late(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562): whoever completes a name finds it, too.

    Type checkers must not see them, or every misspelt name is one of the package's.

    Args:
        package: its `__name__`.
        homes: name → the module that it is in, or is.
    """

    def found(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            home = import_module(homes[name])
        except ModuleNotFoundError as error:
            error.add_note(f"{package}.{name} needs: pip install 'adapterbot[bank,eval]'")
            raise
        return home if homes[name] == f"{package}.{name}" else getattr(home, name)

    return found, lambda: sorted({*vars(sys.modules[package]), *homes})
