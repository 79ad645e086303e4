"""A search through checkpoints."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from adapterbot.records.base import Count, Finite, Line, Name, Probability, Record, Seconds
from adapterbot.records.inspection import Measure
from adapterbot.records.lock import DatasetDiff, RowExample
from adapterbot.records.scores import SampleDiff


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


class LayerChange(Record):
    """‖ΔW‖_F of one layer at two checkpoints, and ‖ΔW − ΔW′‖_F between them."""

    layer: Name
    good: Measure
    bad: Measure
    distance: Measure


class BlamedRow(Record):
    """A training row that came in between. `pull` in −1…1 says how much learning from it makes the
    answers that got worse likelier than those expected: the mean similarity of the gradients at
    both checkpoints."""

    row: RowExample
    pull: Annotated[Finite, Field(ge=-1, le=1)]


class Between(Record):
    """What changed from the last good checkpoint to the first bad one; every list is cut short at a
    bound, the counts are not.

    `data` is None where nothing names the rows of these checkpoints. `layers` are those that moved
    most, of `layers_compared`. `worse` are samples with a worse score at the first bad checkpoint
    than at the good end, of the `samples_asked` that the search put to it. `blame` are the rows
    with the most pull, of `rows_ranked`.
    """

    data: DatasetDiff | None = None
    layers: Annotated[tuple[LayerChange, ...], Field(max_length=16)] = ()
    layers_compared: Count = 0
    worse: Annotated[tuple[SampleDiff, ...], Field(max_length=16)] = ()
    samples_worse: Count = 0
    samples_asked: Count = 0
    blame: Annotated[tuple[BlamedRow, ...], Field(max_length=16)] = ()
    rows_ranked: Count = 0
    notes: Annotated[tuple[Line, ...], Field(max_length=4)] = ()


class Drift(Record):
    """It broke slowly: as good as the oldest up to `since`, as bad as the newest from `until` on.
    `probability` is that of such a rise, where it and one break were as likely beforehand."""

    since: Name
    until: Name
    probability: Probability


class BisectResult(Record):
    """Where it broke. `probability` is the posterior mass on `first_broken`, which is the most
    likely one of `candidates` when the verdict is BROKEN_WITHIN. Where it drifted there, the
    candidates are all checkpoints on the way, and one break is supposed by the mass alone."""

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
    drift: Drift | None = None
    between: Between | None = None
    note: Line = ""

    @model_validator(mode="after")
    def _names_what_it_found(self) -> Self:
        if self.verdict is BisectVerdict.BROKEN_AT and self.first_broken is None:
            raise ValueError("BROKEN_AT must name first_broken")
        return self
