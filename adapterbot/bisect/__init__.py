"""Which checkpoint broke it."""

from adapterbot.bisect.archive import Archive, is_elsewhere, named_checkpoints
from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.bisect.conclusion import conclude
from adapterbot.bisect.driver import DEFAULT_LIMITS, Limits, run
from adapterbot.bisect.git_history import SCHEME as GIT
from adapterbot.bisect.journal import Entry, Journal, heading, read
from adapterbot.bisect.pass_fail import Exact, PassFail
from adapterbot.bisect.posterior import Contradiction, Posterior
from adapterbot.bisect.priors import by_change, uniform
from adapterbot.bisect.saved import SavedBisect, saved
from adapterbot.bisect.scores import PairedBinary, Scores, expected_churn
from adapterbot.bisect.search import Observation, Query, Search
from adapterbot.bisect.setting import Kind, Model, Setting

__all__ = [
    "DEFAULT_LIMITS",
    "GIT",
    "Archive",
    "Checkpoint",
    "Contradiction",
    "Entry",
    "Exact",
    "Journal",
    "Kind",
    "Limits",
    "Model",
    "Observation",
    "PairedBinary",
    "PassFail",
    "Posterior",
    "Query",
    "SavedBisect",
    "Scores",
    "Search",
    "Setting",
    "by_change",
    "conclude",
    "expected_churn",
    "heading",
    "is_elsewhere",
    "named_checkpoints",
    "read",
    "run",
    "saved",
    "uniform",
]
