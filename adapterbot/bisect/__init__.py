"""Which checkpoint broke it."""

from adapterbot.bisect.archive import Checkpoint, find_checkpoints
from adapterbot.bisect.bisection import Answer, Bisection
from adapterbot.bisect.driver import run

__all__ = ["Answer", "Bisection", "Checkpoint", "find_checkpoints", "run"]
