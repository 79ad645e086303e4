"""A Python process of ours beside this one: it imports what this one would, and nothing of the
working directory, which may be a stranger's checkout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from {module} import {name}; {name}()"
)


def command(module: str, name: str, *arguments: str) -> list[str]:
    """Its command line: it calls `name` of `module`, with the arguments in `sys.argv[1:]`."""
    code = _CODE.format(module=module, name=name)
    return [sys.executable, "-I", "-c", code, json.dumps(_places()), *arguments]


def _places() -> list[str]:
    """Where modules come from. Isolation alone would leave out more than the working directory:
    what its user installed for themselves (`pip install --user`), and PYTHONPATH."""
    home, here = os.path.realpath(Path(__file__).parents[1]), os.path.realpath(os.getcwd())
    places = {os.path.abspath(place): os.path.realpath(place) for place in sys.path if place}
    kept = [place for place, real in places.items() if real == home or real != here]
    return kept if home in places.values() else [home, *kept]
