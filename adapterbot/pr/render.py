"""The document as Markdown that GitHub shows, and as JSON.

The same text is a file, a comment and the body of a pull request; only the first of them has no
limit. What is least interesting is left out first, and the text says what that was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from adapterbot.marker import marker
from adapterbot.pages import figures
from adapterbot.pages.changes import rows_that_differ
from adapterbot.pages.inert import Inert
from adapterbot.pages.rows import STANDINGS
from adapterbot.pages.templating import filled, fitted
from adapterbot.records import (
    AdapterPullRequest,
    DatasetDiff,
    Direction,
    EvalDelta,
    SampleChange,
    Standing,
    WeightsFile,
)

BODY_LIMIT: Final = 65_000
_SAMPLE_TEXT = (32 * 1024, 4000, 1500, 500, 200)
_DATA_TEXT = (1024 * 1024, 6000, 800, 60)
_COUNTED = {"file": "file", "example": "row", "sample": "sample", "delta": "metric"}
_SWITCHED = {"clip": "parts of long samples", "data": "parts of the dataset diff"}
_END = "<!-- /adapterbot -->"

Item = tuple[str, int]


@dataclass(frozen=True)
class Row:
    """One metric, figures written out."""

    metric: str
    lower_is_better: bool
    baseline: Inert
    candidate: Inert
    change: Inert
    interval: Inert
    verdict: Inert


def markdown(pull: AdapterPullRequest) -> str:
    """The whole document, its title first."""
    return _document(pull, heading=True, limit=None)


def body(pull: AdapterPullRequest, key: str, *, titled: bool, limit: int = BODY_LIMIT) -> str:
    """The document between our markers: found by the first line, ended by the last.

    Args:
        key: what `marker.document_key` made of the adapter's.
        titled: with the title as a heading, for a comment; a pull request has its own.
        limit: UTF-8 bytes, markers included.

    Raises:
        ValueError: `limit` leaves no room for the title and the weights.
    """
    opening = marker(key)
    room = limit - len(opening) - len(_END) - 2
    return f"{opening}\n{_document(pull, heading=titled, limit=room)}{_END}\n"


def merged_body(ours: str, theirs: str) -> str:
    """`ours` in place of the part of `theirs` between our markers; what people wrote around it
    stays. Where `theirs` has no such part, ours is put before it."""
    opening = ours.partition("\n")[0]
    lines = theirs.replace("\r\n", "\n").split("\n")
    if opening not in lines:
        return ours + ("\n" + theirs if theirs.strip() else "")
    start = lines.index(opening)
    # The end of our part is the last such line: a model's output cannot end it early, since ours
    # is inert, and what a person pastes below it is rather lost than doubled.
    ends = [i for i, line in enumerate(lines) if line == _END and i > start]
    before, after = lines[:start], lines[ends[-1] + 1 :] if ends else []
    return "\n".join([*before, *ours.rstrip("\n").split("\n"), *after])


def json_text(pull: AdapterPullRequest) -> str:
    """The document as JSON: fields in the order of their records, two-space indent.

    A runner takes "##[" for a command wherever it stands in a log, so it is spelled otherwise.
    """
    return pull.model_dump_json(indent=2).replace("##[", "#\\u0023[") + "\n"


# ---------------------------------------------------------------- the byte budget


def _document(pull: AdapterPullRequest, *, heading: bool, limit: int | None) -> str:
    def without(items: Iterable[Item]) -> str:
        return filled("pull.md.j2", pull=pull, shown=_shown(pull, items, heading=heading))

    if limit is None:
        return without(())
    text = fitted(_give_way(pull), without, limit)
    if text is None:
        raise ValueError(f"no adapter pull request fits into {limit} bytes")
    return text


def _give_way(pull: AdapterPullRequest) -> list[Item]:
    """Everything that can be left out, least interesting first."""
    quiet = {Standing.OK, Standing.INFORMATIVE}
    deltas = sorted(
        range(len(pull.deltas)), key=lambda i: (pull.deltas[i].standing not in quiet, -i)
    )
    return [
        ("clip", 0),
        ("data", 0),
        ("clip", 1),
        *(("file", i) for i in range(len(pull.adapter.files) - 1, 9, -1)),
        ("clip", 2),
        ("data", 1),
        *(("sample", i) for i in range(len(pull.samples) - 1, 5, -1)),
        ("clip", 3),
        *(("example", i) for i in range(2, -1, -1)),
        *(("sample", i) for i in range(min(len(pull.samples), 6) - 1, -1, -1)),
        *(("file", i) for i in range(min(len(pull.adapter.files), 10) - 1, -1, -1)),
        ("data", 2),
        *(("delta", i) for i in deltas),
    ]


@dataclass(frozen=True)
class Shown:
    """The document, cut to size."""

    heading: bool
    rows: tuple[Row, ...]
    bare: bool
    samples: tuple[tuple[int, SampleChange], ...]
    sample_text: int
    data: DatasetDiff | None
    data_summary: Inert
    data_text: str
    data_limit: int
    examples: Inert | None
    files: tuple[WeightsFile, ...]
    left_out: Inert | None


def _shown(pull: AdapterPullRequest, items: Iterable[Item], *, heading: bool) -> Shown:
    gone = frozenset(items)
    counts = Counter(kind for kind, _ in gone)
    data = pull.dataset_diff
    sample_text, data_limit = _SAMPLE_TEXT[counts["clip"]], _DATA_TEXT[counts["data"]]
    deltas = [delta for i, delta in enumerate(pull.deltas) if ("delta", i) not in gone]
    rows = data if isinstance(data, DatasetDiff) else DatasetDiff()
    examples = rows_that_differ(rows, 3 - counts["example"], 300 if counts["data"] else 600)
    return Shown(
        heading=heading,
        rows=tuple(_row(delta) for delta in deltas),
        bare=bool(deltas) and not any(delta.interval for delta in deltas),
        samples=tuple(
            (i + 1, sample) for i, sample in enumerate(pull.samples) if ("sample", i) not in gone
        ),
        sample_text=sample_text,
        data=data if isinstance(data, DatasetDiff) else None,
        # Made of counts and our own words.
        data_summary=Inert(data.summary if isinstance(data, DatasetDiff) else ""),
        data_text=data if isinstance(data, str) else "",
        data_limit=data_limit,
        examples=examples,
        files=tuple(f for i, f in enumerate(pull.adapter.files) if ("file", i) not in gone),
        left_out=_left_out(pull, counts, sample_text, data_limit),
    )


def _left_out(
    pull: AdapterPullRequest, counts: Counter[str], sample_text: int, data_limit: int
) -> Inert | None:
    has_rows = isinstance(pull.dataset_diff, DatasetDiff)
    parts: list[str] = [
        figures.count(counts[kind], noun)
        for kind, noun in _COUNTED.items()
        if counts[kind] and kind != "example"
    ]
    longest = max(
        (len(t) for s in pull.samples for t in (s.prompt, s.baseline_output, s.candidate_output)),
        default=0,
    )
    something = {
        "clip": longest > sample_text,
        "data": (has_rows and counts["example"])
        or (isinstance(pull.dataset_diff, str) and len(pull.dataset_diff) > data_limit),
    }
    parts += [words for kind, words in _SWITCHED.items() if something[kind]]
    return Inert(", ".join(parts)) if parts else None


# ---------------------------------------------------------------- figures and rows


def _row(delta: EvalDelta) -> Row:
    scale = figures.Compact.of(delta.unit, delta.baseline, delta.candidate)
    return Row(
        metric=delta.metric,
        lower_is_better=delta.direction is Direction.LOWER,
        baseline=_level(scale, delta.baseline),
        candidate=_level(scale, delta.candidate),
        change=scale.change(delta.delta),
        interval=scale.interval(delta.interval),
        verdict=_verdict(delta),
    )


def _level(scale: figures.Compact, value: float | None) -> Inert:
    return Inert("not measured") if value is None else scale.level(value)


def _verdict(delta: EvalDelta) -> Inert:
    if delta.baseline is None:
        return Inert("no baseline to compare with")
    if delta.candidate is None:
        return Inert("the candidate was not measured")
    if delta.standing is not None:
        return Inert("".join(STANDINGS[delta.standing]))
    if not delta.delta:
        return Inert("same")
    if delta.direction is None:
        return Inert("–")
    better = (delta.delta > 0) is (delta.direction is Direction.HIGHER)
    return Inert("▲ better" if better else "▼ worse")
