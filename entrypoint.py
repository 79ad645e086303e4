"""The action's door into adapterbot.cli. Run as `python -I entrypoint.py`: isolated, so that
nothing in the pull request's checkout, which is the working directory, can be imported."""

import os
import sys
from pathlib import Path

# Isolated mode leaves out even this file's own folder; the action's code is the one to run,
# whatever version of the package the environment happens to have.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adapterbot.cli import program

if __name__ == "__main__":
    command = os.environ.get("ADAPTERBOT_COMMAND") or "gate"
    if command not in {"gate", "bisect", "publish", "answer", "finish"}:
        print("::error title=adapterbot::input command: use gate, bisect, publish or answer")
        sys.exit(2)
    program([command])
