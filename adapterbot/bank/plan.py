"""How users' vectors are fitted, as it is asked for; `bank.fit` does it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Plan:
    """How every user is fitted.

    Attributes:
        steps: the most steps of a user.
        rate: Adam's.
        batch: examples of a user in one step.
        every: steps between two looks at the held-out examples.
        patience: looks without a better loss after which a user is done.
        users: how many are fitted at once.
        held_out: share of a user's prompts that is held out, one at least where there are two.
        seed: of that choice, and of the order of examples.
    """

    steps: int = 200
    rate: float = 0.02
    batch: int = 2
    every: int = 10
    patience: int = 3
    users: int = 32
    held_out: float = 0.2
    seed: int = 0


def plan_key(plan: Plan, parts: Sequence[str]) -> str:
    """What a state and a row must have been made with to be gone on with or left as they are."""
    return json.dumps([asdict(plan), *parts])
