"""What changed between two checkpoints, and rows of data that differ, made ready for a reader."""

from __future__ import annotations

from dataclasses import dataclass

from adapterbot.pages import inert
from adapterbot.pages.inert import Inert
from adapterbot.records import Between, BlamedRow, DatasetDiff, LayerChange, SampleDiff

# How many rows of each kind are shown and how much of each, and what is left when room is scarce.
_ROWS = ((3, 600), (1, 200))


@dataclass(frozen=True)
class LayerRow:
    """One layer: ‖ΔW‖ at the last good and at the first bad checkpoint, and how far it moved."""

    layer: str
    good: Inert
    bad: Inert
    distance: Inert

    @classmethod
    def of(cls, change: LayerChange) -> LayerRow:
        """Three digits of each, zeros at their end too, so that a column lines up."""
        sizes = (change.good, change.bad, change.distance)
        return cls(change.layer, *(Inert(f"{size:#.3g}".rstrip(".")) for size in sizes))


@dataclass(frozen=True)
class PullRow:
    """A training row that came in, where it stands, and its pull towards what broke."""

    place: str
    content: str
    pull: Inert

    @classmethod
    def of(cls, blamed: BlamedRow) -> PullRow:
        """Two digits of the pull."""
        row = blamed.row
        return cls(f"{row.file}:{row.line}", row.after or "", Inert(f"{blamed.pull:+.2f}"))


@dataclass(frozen=True)
class Changes:
    """From the last good checkpoint to the first bad one, cut to size."""

    data: Inert | None
    rows: Inert | None
    layers: tuple[LayerRow, ...]
    layers_compared: int
    worse: tuple[SampleDiff, ...]
    samples_worse: int
    samples_asked: int
    blame: tuple[PullRow, ...]
    rows_ranked: int
    notes: tuple[str, ...]


def changes(found: Between, *, data_cut: bool, layers: bool, samples: bool, blame: bool) -> Changes:
    """A change without what there is no room for.

    Args:
        data_cut: whether to show less of the rows.
    """
    each, limit = _ROWS[data_cut]
    return Changes(
        # Made of counts and our own words.
        data=Inert(found.data.summary) if found.data else None,
        rows=rows_that_differ(found.data, each, limit) if found.data else None,
        layers=tuple(map(LayerRow.of, found.layers)) if layers else (),
        layers_compared=max(found.layers_compared, len(found.layers)),
        worse=found.worse if samples else (),
        samples_worse=max(found.samples_worse, len(found.worse)),
        samples_asked=max(found.samples_asked, found.samples_worse, len(found.worse)),
        blame=tuple(map(PullRow.of, found.blame)) if blame else (),
        rows_ranked=max(found.rows_ranked, len(found.blame)),
        notes=found.notes,
    )


def rows_that_differ(data: DatasetDiff, each: int, limit: int) -> Inert | None:
    """A few of the rows that differ, as one diff: what changed, went and came.

    Args:
        each: at most so many of each.
        limit: characters of a row.
    """
    rows = (*data.changed_rows[:each], *data.removed_rows[:each], *data.added_rows[:each])
    content: list[str] = []
    for row in rows:
        content.append(f"@@ {inert.visible(row.file[-200:], in_code=True)}:{row.line} @@")
        for sign, text in (("-", row.before), ("+", row.after)):
            if text is not None:
                content += [sign + line for line in inert.lines(text, limit)]
    return inert.fenced(content, "diff") if content else None
