"""Runs a search over checkpoints: asks the posterior, probes, tells, and reports what came out.

It is given a way to probe one checkpoint and knows nothing of how that is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adapterbot.bisect.checkpoints import Checkpoint
from adapterbot.bisect.costs import Costs
from adapterbot.bisect.journal import Entry, Journal
from adapterbot.bisect.posterior import Contradiction, Posterior
from adapterbot.bisect.setting import Setting
from adapterbot.records import BisectResult, BisectVerdict, Drift, Probe, ProbeOutcome, Suspicion

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
        word: how a reader takes it; by the outcome where that is plain.
        until: how many of the checkpoint's samples of this kind have been asked, scored or not.
    """

    outcome: Any
    detail: str = ""
    word: ProbeOutcome | None = None
    until: int = 0

    def shown(self) -> ProbeOutcome:
        """Good, bad, measured or skipped."""
        if self.word is not None:
            return self.word
        if self.outcome is None:
            return ProbeOutcome.SKIPPED
        if isinstance(self.outcome, bool):
            return ProbeOutcome.BAD if self.outcome else ProbeOutcome.GOOD
        return ProbeOutcome.MEASURED


Prober = Callable[[int, int, int], Observation]
"""Probes checkpoint `index` by `kind`; told how many outcomes of the kind it gave before, those of
probes that go on at the same time included."""


Together = Callable[[Sequence[tuple[int, int, int]]], Sequence[Observation]]
"""Makes several probes at once, each (index, kind, outcomes before it) as a `Prober` is told."""


@dataclass(frozen=True)
class Limits:
    """When to stop although it is not sure enough, and how much goes on at once.

    Attributes:
        probes: at most so many probes, those of a resumed journal included.
        seconds: no new probe after this long.
        jobs: how many probes at the same time.
    """

    probes: int | None = None
    seconds: float | None = None
    jobs: int = 1

    def at_once(self, made: int) -> int:
        """How many probes may begin now, after so many."""
        return self.jobs if self.probes is None else min(self.jobs, self.probes - made)


DEFAULT_LIMITS = Limits()


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

    def counted(self, batch: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Each probe of a batch as a `Prober` is told, those before it in the batch counted."""
        return [
            (
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


def run(
    search: Search,
    probe: Prober,
    *,
    together: Together | None = None,
    limits: Limits = DEFAULT_LIMITS,
    journal: Journal | None = None,
    stop: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[str], None] = lambda _: None,
) -> BisectResult:
    """Find the first bad checkpoint.

    Args:
        search: what is searched; evidence from elsewhere has been taken already.
        probe: evaluates one checkpoint. It is called from `limits.jobs` threads.
        together: evaluates several; None leaves them to the threads.
        journal: where finished probes are kept; those in it are taken, not repeated.
        stop: ends the probes that go on in other threads; called when this one is interrupted.
    """
    for entry in journal.entries if journal else ():
        search.take(entry)
    started = clock()

    def finished(
        asked: tuple[int, int, int], seen: Observation, seconds: float
    ) -> tuple[Entry, Observation]:
        entry = _entry(asked, seen, seconds)
        # At once: another of its batch may take long, or fail.
        if journal:
            journal.add(entry)
        return entry, seen

    def one(asked: tuple[int, int, int]) -> tuple[Entry, Observation]:
        begun = clock()
        seen = probe(*asked)
        return finished(asked, seen, clock() - begun)

    def all_of(batch: Sequence[tuple[int, int, int]]) -> Iterable[tuple[Entry, Observation]]:
        # One at a time stays in this thread: a model is bound to the one that loaded it.
        if len(batch) == 1:
            return [one(batch[0])]
        if together is None:
            return workers.map(one, batch)
        begun = clock()
        seen = together(batch)
        each = (clock() - begun) / len(batch)
        return [finished(asked, of, each) for asked, of in zip(batch, seen, strict=True)]

    cut = False
    with ThreadPoolExecutor(max(limits.jobs, 1)) as workers:
        try:
            while True:
                count = limits.at_once(search.made)
                late = limits.seconds is not None and clock() - started >= limits.seconds
                cut = count <= 0 or late
                batch = [] if cut else search.next(count)
                if not batch:
                    break
                for entry, seen in all_of(search.counted(batch)):
                    search.take(entry, seen.shown())
                    label = search.checkpoints[entry.index].label
                    progress(f"{label}: {seen.shown().value} ({entry.detail})")
        except KeyboardInterrupt:
            stop()  # the pool waits for its threads, which may be at it for hours
            raise
    return conclude(search, cut=cut)


def _entry(asked: tuple[int, int, int], seen: Observation, seconds: float) -> Entry:
    index, kind, _ = asked
    outcome = seen.outcome
    return Entry(
        index=index,
        kind=kind,
        outcome=tuple(map(float, outcome)) if isinstance(outcome, np.ndarray) else outcome,
        seconds=max(0.0, seconds),
        detail=seen.detail[:2000],
        until=seen.until,
    )


def conclude(search: Search, *, cut: bool = False) -> BisectResult:
    """What the posterior says now, in Soup's words; `cut`: a limit ended the search."""
    confidence = search.setting.confidence
    labels = [checkpoint.label for checkpoint in search.checkpoints]
    n = len(labels)
    common: Mapping[str, Any] = {
        "metrics": tuple(search.metrics),
        "checkpoints": n,
        "probes": tuple(search.probes),
    }
    if search.contradicted:
        return BisectResult(
            verdict=BisectVerdict.NOT_RUN,
            note="a good checkpoint comes after a bad one: more than one change, or an eval that "
            "is not always right",
            **common,
        )
    weights = search.posterior.distribution()
    best, probability = search.posterior.best()
    set_ = search.posterior.credible(confidence)
    suspects = [index for index in set_ if index < n]
    common = {
        **common,
        "suspicions": tuple(
            Suspicion(index=i, label=labels[i], probability=float(weights[i]))
            for i in sorted(suspects, key=lambda i: -weights[i])[:64]
        ),
        "good_probability": float(weights[n]),
    }
    if best == n and probability >= confidence:
        return BisectResult(verdict=BisectVerdict.ALL_OK, probability=probability, **common)
    if not any(probe.outcome is not ProbeOutcome.SKIPPED for probe in search.probes) and (
        probability < confidence
    ):
        reason = next((probe.detail for probe in search.probes), "nothing was probed")
        return BisectResult(
            verdict=BisectVerdict.NOT_RUN,
            note=f"no checkpoint could be evaluated: {reason}"[:1000],
            **common,
        )
    first = min(suspects, key=lambda i: -weights[i])
    slow = search.posterior.rise()
    if slow and slow.certain:
        return BisectResult(
            verdict=BisectVerdict.BROKEN_WITHIN,
            first_broken=labels[first],
            last_good=labels[slow.start],
            candidates=tuple(labels[slow.start + 1 : slow.end + 1]),
            drift=Drift(
                since=labels[slow.start],
                until=labels[slow.end],
                probability=slow.odds / (1.0 + slow.odds),
            ),
            note=f"it came slowly, from {labels[slow.start][-200:]} to {labels[slow.end][-200:]}: "
            "no checkpoint alone is the first broken one",
            **common,
        )
    sure = probability >= confidence
    return BisectResult(
        verdict=BisectVerdict.BROKEN_AT if sure else BisectVerdict.BROKEN_WITHIN,
        first_broken=labels[first],
        last_good=labels[min(suspects) - 1] if min(suspects) > 0 else None,
        candidates=(labels[first],) if sure else tuple(labels[i] for i in suspects),
        probability=float(weights[first]),
        note=_note(search, first, sure, n in set_, cut),
        **common,
    )


def _note(search: Search, first: int, sure: bool, perhaps_none: bool, cut: bool) -> str:
    against = search.posterior.misplaced(first) if sure else []
    if against:
        named = []
        for index in against[:4]:
            looks = "after it looks good" if index >= first else "before it looks bad"
            named.append(f"{search.checkpoints[index].label[-80:]} {looks}")
        return f"{', '.join(named)}: there is more than one change, or one that came slowly"
    if sure:
        return "the oldest checkpoint is broken already" if first == 0 else ""
    skipped = any(probe.outcome is ProbeOutcome.SKIPPED for probe in search.probes)
    reasons = {
        "ended by its limit of time or probes: a larger one, with --resume, narrows this": cut,
        "some of these checkpoints could not be evaluated": skipped,
        "it may also be that none of them is broken": perhaps_none,
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)
