"""Processes that we start beside this one: what they may know of its environment. One of our own
imports what this one would, and nothing of the working directory, which may be a stranger's
checkout."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_OURS = re.compile(f"^ADAPTERBOT_.*({SECRET.pattern})", re.IGNORECASE)
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from {module} import {name}; {name}()"
)


def environment(secret: re.Pattern[str] = SECRET) -> dict[str, str]:
    """Ours without secrets, by the names of their variables: what our own process reads may be a
    stranger's, and made to take it over."""
    return {name: value for name, value in os.environ.items() if not secret.search(name)}


def programs_environment() -> dict[str, str]:
    """Ours for another program, which may need the secrets that its user gave it, and none that
    only adapterbot knows."""
    return environment(_OURS)


def command(module: str, name: str, *arguments: str) -> list[str]:
    """Its command line: it calls `name` of `module`, with the arguments in `sys.argv[1:]`."""
    code = _CODE.format(module=module, name=name)
    return [sys.executable, "-I", "-c", code, json.dumps(_places()), *arguments]


def _places() -> list[str]:
    """Where modules come from. Isolation alone would leave out more than the working directory:
    what its user installed for themselves (`pip install --user`), and PYTHONPATH."""
    home, here = Path(__file__).resolve().parents[1], Path.cwd().resolve()
    places = {str(Path(place).absolute()): Path(place).resolve() for place in sys.path if place}
    kept = [place for place, real in places.items() if real == home or real != here]
    return kept if home in places.values() else [str(home), *kept]
