"""Where a search stands: the posterior, what was probed, and what to probe next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.bisect.costs import Costs
from adapterbot.bisect.journal import Entry
from adapterbot.bisect.posterior import Contradiction, Posterior
from adapterbot.bisect.setting import Setting
from adapterbot.records import Probe, ProbeOutcome

# When it is first looked at whether it came slowly, in probes; then whenever they have doubled.
_FIRST_LOOK = 16
# Odds of a slow rise under which one change is settled, and how many probes that may take.
_NO_RISE = 1 / 3
_SETTLING = 16


@dataclass(frozen=True)
class Observation:
    """What one probe brought.

    Attributes:
        outcome: as `Posterior.tell` takes it; None: the checkpoint cannot tell.
        detail: the figures behind it in a few words.
        until: how many of the checkpoint's samples of this kind have been asked, scored or not.
    """

    outcome: Any
    detail: str = ""
    until: int = 0

    def shown(self) -> ProbeOutcome:
        """Good, bad, measured or skipped."""
        if self.outcome is None:
            return ProbeOutcome.SKIPPED
        if isinstance(self.outcome, bool):
            return ProbeOutcome.BAD if self.outcome else ProbeOutcome.GOOD
        return ProbeOutcome.MEASURED


class Query(NamedTuple):
    """A probe to make.

    Attributes:
        checkpoint: its index.
        kind: of outcome.
        seen: how many outcomes of the kind it gave before, those of probes that go on at the same
            time included.
    """

    checkpoint: int
    kind: int
    seen: int


@dataclass
class Search:
    """One search, its posterior and what was probed so far.

    Attributes:
        settling: how many more probes may be spent on telling one change from a slow rise.
    """

    checkpoints: Sequence[Checkpoint]
    setting: Setting
    metrics: Sequence[str] = ()
    probes: list[Probe] = field(default_factory=list)
    made: int = 0
    settling: int = _SETTLING
    contradicted: bool = False
    costs: Costs = field(default_factory=Costs)
    posterior: Posterior = field(init=False)

    def __post_init__(self) -> None:
        self.posterior = self.setting.posterior(len(self.checkpoints))

    def take(self, entry: Entry, shown: ProbeOutcome | None = None) -> None:
        """Tell the posterior of one probe, and remember it for the report."""
        outcome = entry.outcome
        if isinstance(outcome, tuple):
            self.posterior.tell(entry.index, np.array(outcome), entry.kind)
        else:
            self.posterior.tell(entry.index, outcome, entry.kind)
        if not entry.given:
            self.made += 1
            self.costs.book(entry.index, entry.kind, entry.seconds)
        if not 0 <= entry.index < len(self.checkpoints):
            return
        self.probes.append(
            Probe(
                index=entry.index,
                label=self.checkpoints[entry.index].label,
                outcome=shown
                or (ProbeOutcome.BAD if entry.given else Observation(outcome).shown()),
                seconds=round(entry.seconds, 3),
                samples=len(outcome) if isinstance(outcome, tuple) else 0,
                detail=entry.detail,
            )
        )

    def counted(self, batch: Sequence[tuple[int, int]]) -> list[Query]:
        """The queries of a batch, those before each in the batch counted."""
        return [
            Query(
                index,
                kind,
                int(self.posterior.asked(index, kind))
                + batch[:place].count((index, kind)) * self.setting.kinds[kind].size,
            )
            for place, (index, kind) in enumerate(batch)
        ]

    def next(self, count: int) -> list[tuple[int, int]]:
        """At most `count` probes to make now, (index, kind) each; none when enough is known."""
        try:
            best, probability = self.posterior.best()
        except Contradiction:
            self.contradicted = True
            return []
        if probability < self.setting.confidence:
            mass = self.setting.confidence
            if self.posterior.stuck(mass) or self.posterior.constant(mass) is not None:
                return []
            # A slow rise keeps a search of one change busy for long.
            looks = self.made >= _FIRST_LOOK and self.made.bit_count() == 1
            slow = self.posterior.rise() if looks else None
            if slow and slow.certain:
                return []
            sizes = self.setting.sizes
            costs = self.costs.expected(len(self.checkpoints), len(sizes))
            return self.posterior.choose_batch(count, costs, sizes=sizes)
        slow = self.posterior.rise() if best < len(self.checkpoints) else None
        if slow is None or slow.certain or slow.odds < _NO_RISE or not self.settling:
            return []
        self.settling -= 1
        between = self.posterior.choose_between(slow)
        return [between] if between else []
