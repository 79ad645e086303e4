"""soup.lock: a closure that is computed, checked and explained."""

from adapterbot.lock.check import check, measure, write
from adapterbot.lock.digests import files_in_tree
from adapterbot.lock.rows import dataset_diff, read_rows
from adapterbot.lock.schema import Lock, closure, dumps, loads
from adapterbot.lock.training import load_training

__all__ = [
    "Lock",
    "check",
    "closure",
    "dataset_diff",
    "dumps",
    "files_in_tree",
    "load_training",
    "loads",
    "measure",
    "read_rows",
    "write",
]
