"""soup.lock: a closure that is computed, checked and explained.

What only some callers need (`rows`, `env_sources`, `hub`) is imported from its own module.
"""

from adapterbot.lock.base_model import files_in_tree
from adapterbot.lock.check import Check, Part, check
from adapterbot.lock.pinned import measure
from adapterbot.lock.schema import closure, dumps, loads
from adapterbot.lock.training import load_training

__all__ = [
    "Check",
    "Part",
    "check",
    "closure",
    "dumps",
    "files_in_tree",
    "load_training",
    "loads",
    "measure",
]
