"""A Python process of ours beside this one: it imports what this one would, and nothing of the
working directory, which may be a stranger's checkout."""

from __future__ import annotations

import json
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
    home, here = Path(__file__).resolve().parents[1], Path.cwd().resolve()
    places = {str(Path(place).absolute()): Path(place).resolve() for place in sys.path if place}
    kept = [place for place, real in places.items() if real == home or real != here]
    return kept if home in places.values() else [str(home), *kept]
