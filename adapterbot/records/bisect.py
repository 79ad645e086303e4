"""A search through checkpoints."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import model_validator

from adapterbot.records.base import Count, Line, Name, Probability, Record, Seconds, Text


class ProbeOutcome(StrEnum):
    """What one probe said of one checkpoint."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"
    MEASURED = "measured"  # a score, or the samples that changed: neither good nor bad by itself


class Probe(Record):
    """One evaluation of one checkpoint, in the order in which it was made."""

    index: Count
    label: Name
    outcome: ProbeOutcome
    seconds: Seconds
    samples: Count = 0
    detail: Line = ""


class Suspicion(Record):
    """How likely it is that one checkpoint is the first bad one."""

    index: Count
    label: Name
    probability: Probability


class BisectVerdict(StrEnum):
    """Soup's words, and one more for a search that ended with a range."""

    ALL_OK = "ALL_OK"
    BROKEN_AT = "BROKEN_AT"
    BROKEN_WITHIN = "BROKEN_WITHIN"
    NOT_RUN = "NOT_RUN"


class BisectResult(Record):
    """Where it broke. `probability` is the posterior mass on `first_broken`, which is the most
    likely one of `candidates` when the verdict is BROKEN_WITHIN."""

    verdict: BisectVerdict
    metrics: tuple[Name, ...] = ()
    checkpoints: Count = 0
    first_broken: Name | None = None
    last_good: Name | None = None
    candidates: tuple[Name, ...] = ()
    probability: Probability | None = None
    good_probability: Probability | None = None  # that none of them is broken
    suspicions: tuple[Suspicion, ...] = ()
    probes: tuple[Probe, ...] = ()
    data_change: Text = ""
    note: Line = ""

    @model_validator(mode="after")
    def _names_what_it_found(self) -> Self:
        if self.verdict is BisectVerdict.BROKEN_AT and self.first_broken is None:
            raise ValueError("BROKEN_AT must name first_broken")
        return self
