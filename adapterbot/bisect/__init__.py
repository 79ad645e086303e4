"""Which checkpoint broke it."""

from adapterbot.bisect.archive import Checkpoint, find_checkpoints
from adapterbot.bisect.driver import (
    DEFAULT_LIMITS,
    Limits,
    Observation,
    Prober,
    Search,
    conclude,
    run,
)
from adapterbot.bisect.evidence import Exact, Outcomes, PairedBinary, PassFail, Scores
from adapterbot.bisect.journal import Entry, Journal
from adapterbot.bisect.posterior import Contradiction, Posterior, by_change, uniform

__all__ = [
    "DEFAULT_LIMITS",
    "Checkpoint",
    "Contradiction",
    "Entry",
    "Exact",
    "Journal",
    "Limits",
    "Observation",
    "Outcomes",
    "PairedBinary",
    "PassFail",
    "Posterior",
    "Prober",
    "Scores",
    "Search",
    "by_change",
    "conclude",
    "find_checkpoints",
    "run",
    "uniform",
]
