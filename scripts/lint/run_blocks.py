"""Shellcheck for the `run:` blocks of an action or of workflows named on the command line.

Also refuses `${{ }}` inside them: an expression there is pasted into the script before the shell
sees it, so that a branch name can be a command. Values reach a script through `env:` only.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SHELLCHECK = Path(sysconfig.get_path("scripts"), "shellcheck")


def steps(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of a composite action, or of every job of a workflow."""
    yield from document.get("runs", {}).get("steps", [])
    for job in document.get("jobs", {}).values():
        yield from job.get("steps", [])


def findings(path: Path) -> Iterator[str]:
    """One text per finding."""
    for number, step in enumerate(steps(yaml.safe_load(path.read_text("utf-8"))), start=1):
        script = step.get("run")
        if script is None:
            continue
        where = f"{path}: step {number} ({step.get('name', 'unnamed')})"
        if "${{" in script:
            yield f"{where}: an expression inside run: pass it through env instead"
        # GitHub's own first line for `shell: bash`, so that what is checked is what runs.
        done = subprocess.run(
            [SHELLCHECK, "--shell=bash", "--format=gcc", "-"],
            input=f"set -eo pipefail\n{script}",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            yield f"{where}:\n{done.stdout}{done.stderr}"


def main(paths: list[str]) -> int:
    found = [text for path in paths for text in findings(Path(path))]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
