"""soup.lock: a closure that is computed, checked and explained."""

from adapterbot.lock.check import check, measure, write
from adapterbot.lock.schema import Lock, closure, dumps, loads

__all__ = ["Lock", "check", "closure", "dumps", "loads", "measure", "write"]
