"""The peers that a bench runs beside us, each in an environment of its own.

Their requirements contradict each other and ours, so none of them is a requirement of this
project. An environment is made once, in `.cache/peers/`, from the package registry.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".cache" / "peers"
# Whatever a peer asks for: one build of torch, the one that we are measured with.
TORCH = "torch==2.13.0"


def environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of an environment that holds `requirements`, made if it is not there yet.

    Args:
        name: folder in `.cache/peers`; a change of requirements needs a new name.
        requirements: as pip takes them, pinned.
    """
    folder = PLACE / name
    if (folder / ".made").exists():
        return folder / "bin"
    print(f"installing {', '.join(requirements)} …", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    constraint = folder / "constraints.txt"
    constraint.write_text(f"{TORCH}\n", encoding="utf-8")
    subprocess.run(
        [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            constraint,
            *requirements,
        ],
        check=True,
        stdout=sys.stderr,
    )
    (folder / ".made").touch()
    return folder / "bin"


def soup() -> Path:
    """Soup's command line, the peer of nearly everything here."""
    return environment("soup", "soup-cli==0.77.0")


def runner() -> Path:
    """Ours: the Python with what the action installs for a gate, and no more."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["eval"]]
    constraints = str(ROOT / "constraints.txt")
    return environment("runner", "--constraint", constraints, *wanted) / "python"
