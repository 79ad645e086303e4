"""What a server is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapterbot.bank.serve.metrics import Metrics
from adapterbot.bank.serve.presence import Presence
from adapterbot.bank.serve.running import Base
from adapterbot.bank.serve.scheduler import Scheduler
from adapterbot.bank.store import BankStore


@dataclass(frozen=True)
class Service:
    """What an application is made of.

    Attributes:
        name: of the base, before the colon in `model`.
        base: the loaded model, whose tokenizer is used here.
        store: whom there are, and whose keys; without one there are no keys to ask for.
        mixtures: the names of those that are on the model.
        choice: how tokens are chosen: temperature, top-p and seed to what the chooser takes.
        open_to_all: no API keys are asked for; whoever reaches the server reaches every tenant.
        limit: the most tokens of an answer.
        presence: of the store's bank.
    """

    name: str
    base: Base
    store: BankStore | None
    scheduler: Scheduler
    metrics: Metrics
    choice: Callable[[float, float, int], Any]
    mixtures: frozenset[str] = frozenset()
    open_to_all: bool = False
    limit: int = 1024
    presence: Presence | None = None
