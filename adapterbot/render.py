"""Report -> Markdown and JSON, within GitHub's limits.

Every string of a report is hostile; `templating` makes each of them inert. No clock, no random:
equal reports give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from adapterbot.marker import DEFAULT_NAME, marker
from adapterbot.pages.inert import Inert
from adapterbot.pages.section import give_way, headline, page
from adapterbot.pages.templating import filled, fitted, size
from adapterbot.records import AdapterReport, Report

# GitHub takes 65,536 characters in a comment and 1 MiB in a step summary.
COMMENT_LIMIT: Final = 65_000
SUMMARY_LIMIT: Final = 1_000_000
# The longest row of the summary's table: a name of 100 characters, each spelled out.
_SUMMARY_ROW = 1400
_BAR = 20


@dataclass(frozen=True)
class Links:
    """Where the rest can be read. From the trusted event, never from a report."""

    run: str = ""
    summary: str = ""
    report: str = ""


# ---------------------------------------------------------------- the documents


def comment(
    report: Report,
    adapter: AdapterReport,
    *,
    links: Links = Links(),
    limit: int = COMMENT_LIMIT,
    name: str = DEFAULT_NAME,
) -> str:
    """The sticky comment of one adapter: at most `limit` UTF-8 bytes, marker on the first line.

    What is least interesting is left out first, and the comment says what that was.

    Raises:
        ValueError: `limit` leaves no room for a headline (a few hundred bytes do).
    """
    opening = marker(adapter.key, name) + "\n"
    body = _section(report, adapter, links=links, limit=limit - len(opening), level=3)
    if body is None:
        raise ValueError(f"no comment fits into {limit} bytes")
    return opening + body


def summary(report: Report, *, links: Links = Links(), limit: int = SUMMARY_LIMIT) -> str:
    """The job summary: every adapter, at most `limit` UTF-8 bytes."""
    rows = min(len(report.adapters), limit // (8 * _SUMMARY_ROW))
    left = limit - rows * _SUMMARY_ROW - 500
    sections: list[str] = []
    for i, adapter in enumerate(report.adapters):
        # What one adapter does not use is left for those after it.
        share = left // (len(report.adapters) - i)
        section = _section(report, adapter, links=links, limit=share, level=2)
        if section is None:
            break
        sections.append(section)
        left -= size(section) + 1
    return filled(
        "summary.md.j2",
        adapters=[(adapter, *headline(adapter)) for adapter in report.adapters[:rows]],
        total=len(report.adapters),
        sections=[Inert(section) for section in sections],
    )


def progress(
    key: str,
    adapter_name: str,
    fraction: float | None = None,
    *,
    detail: str = "",
    head_sha: str | None = None,
    links: Links = Links(),
    name: str = DEFAULT_NAME,
) -> str:
    """The comment while the gate runs; nothing in it looks like a verdict."""
    done = None if fraction is None else round(min(max(fraction, 0.0), 1.0), 2)
    cells = 0 if done is None else int(done * _BAR)
    return filled(
        "progress.md.j2",
        marker=Inert(marker(key, name)),
        name=adapter_name,
        done=done,
        bar=Inert("█" * cells + "░" * (_BAR - cells)),
        detail=detail,
        head_sha=head_sha,
        links=links,
    )


def json_text(report: Report) -> str:
    """report.json: fields in the order of their records, two-space indent, trailing newline."""
    return report.model_dump_json(indent=2) + "\n"


# ---------------------------------------------------------------- the byte budget


def _section(
    report: Report, adapter: AdapterReport, *, links: Links, limit: int, level: int
) -> str | None:
    """One adapter within `limit` bytes, with as little left out as possible; None if hopeless."""
    heading = Inert("#" * level)

    def without(items: Iterable[tuple[str, int]]) -> str:
        return filled(
            "section.md.j2",
            page=page(adapter, items),
            a=adapter,
            report=report,
            links=links,
            level=heading,
        )

    order = give_way(adapter)
    best = fitted(order, without, limit)
    if best is not None:
        return best
    bare = filled("bare.md.j2", page=page(adapter, order), links=links, level=heading)
    return bare if size(bare) <= limit else None
