"""What `adapterbot diff` and `adapterbot scan` found in the weights of adapters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from adapterbot.records.base import Count, Digest, Finite, Line, Record

Measure = Annotated[Finite, Field(ge=0.0)]


class ModuleDiff(Record):
    """One module's ΔW in two adapters; what an adapter does not touch has ΔW = 0.

    `distance` is ‖ΔW_A − ΔW_B‖_F, and `relative` the same over the larger of the two norms.
    `cosine` is None when one of the two is zero. The effective ranks are those of ΔW_A, ΔW_B and
    their difference.
    """

    module: Line
    rank_a: Count
    rank_b: Count
    norm_a: Measure
    norm_b: Measure
    distance: Measure
    relative: Measure
    cosine: Finite | None
    effective_rank_a: Measure
    effective_rank_b: Measure
    effective_rank_difference: Measure


class WholeDiff(Record):
    """A parameter that was saved whole; `distance` is None when only one adapter has it."""

    parameter: Line
    distance: Measure | None
    largest: Measure | None


class AdapterDiff(Record):
    """Two adapters compared by what they do to the base's weights."""

    a: Line
    b: Line
    digest_a: Digest
    digest_b: Digest
    norm_a: Measure
    norm_b: Measure
    distance: Measure
    relative: Measure
    cosine: Finite | None
    modules: tuple[ModuleDiff, ...]
    whole: tuple[WholeDiff, ...]


class Severity(StrEnum):
    """Whether a finding fails the scan."""

    FAIL = "fail"
    WARN = "warn"


class ScanFinding(Record):
    """One thing that is wrong, or looks it."""

    severity: Severity
    kind: Line
    where: Line
    message: Line
    fix: Line = ""


class ScanReport(Record):
    """What a look at an adapter's files and weights found, without running it. `norm` is that of
    ΔW, None where it was not computed."""

    adapter: Line
    digest: Digest | None = None
    peft_type: Line = ""
    base_model: Line = ""
    modules: Count = 0
    parameters: Count = 0
    norm: Measure | None = None
    findings: tuple[ScanFinding, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether anything found rules the adapter out."""
        return any(finding.severity is Severity.FAIL for finding in self.findings)
