"""Report -> Markdown, HTML and JSON, within GitHub's limits.

Every string of a report is hostile. The Markdown environment therefore passes each printed value
through `inert.text` unless a filter has made it inert already, so a forgotten filter costs looks
and not safety. No clock, no random: equal reports give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adapterbot import figures, inert
from adapterbot.inert import Inert
from adapterbot.marker import marker
from adapterbot.page import broke, give_way, headline, page, short_digest
from adapterbot.records import AdapterReport, Report, SampleDiff

# GitHub takes 65,536 characters in a comment and 1 MiB in a step summary.
COMMENT_LIMIT: Final = 65_000
SUMMARY_LIMIT: Final = 1_000_000
# No item is shorter than this in bytes, so that many of them is the most that can ever fit.
_LEAST_ITEM = 40
_MOST_ITEMS = 2000
# The longest row of the summary's table: a name of 100 characters, each spelled out.
_SUMMARY_ROW = 1400
_BAR = 20
_LOADER = PackageLoader("adapterbot")


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
) -> str:
    """The sticky comment of one adapter: at most `limit` UTF-8 bytes, marker on the first line.

    What is least interesting is left out first, and the comment says what that was.

    Raises:
        ValueError: `limit` leaves no room for a headline (a few hundred bytes do).
    """
    opening = marker(adapter.key) + "\n"
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
        left -= _size(section) + 1
    return _filled(
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
) -> str:
    """The comment while the gate runs; nothing in it looks like a verdict."""
    done = None if fraction is None else round(min(max(fraction, 0.0), 1.0), 2)
    filled = 0 if done is None else int(done * _BAR)
    return _filled(
        "progress.md.j2",
        marker=Inert(marker(key)),
        name=adapter_name,
        done=done,
        bar=Inert("█" * filled + "░" * (_BAR - filled)),
        detail=detail,
        head_sha=head_sha,
        links=links,
    )


def html(report: Report) -> str:
    """One self-contained page: no script, no request, its one style pinned by hash."""
    style, _, _ = _LOADER.get_source(_web(), "report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = _web().get_template("report.html.j2")
    return template.render(
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=digest,
        report=report,
        pages=[page(adapter) for adapter in report.adapters],
    )


def json_text(report: Report) -> str:
    """report.json: fields in the order of their records, two-space indent, trailing newline."""
    return report.model_dump_json(indent=2) + "\n"


# ---------------------------------------------------------------- the byte budget


def _size(text: str) -> int:
    return len(text.encode())


def _section(
    report: Report, adapter: AdapterReport, *, links: Links, limit: int, level: int
) -> str | None:
    """One adapter within `limit` bytes, with as little left out as possible; None if hopeless."""

    def without(items: Iterable[tuple[str, int]]) -> str:
        return _filled(
            "section.md.j2",
            page=page(adapter, items),
            a=adapter,
            report=report,
            links=links,
            level=Inert("#" * level),
        )

    order = give_way(adapter)
    least = max(0, len(order) - min(max(limit, 0) // _LEAST_ITEM, _MOST_ITEMS))
    best = without(order[:least])
    if _size(best) <= limit:
        return best
    # The size falls with every item left out: find the first count that fits.
    fits, best = len(order), without(order)
    if _size(best) > limit:
        bare = _filled(
            "bare.md.j2", page=page(adapter, order), links=links, level=Inert("#" * level)
        )
        return bare if _size(bare) <= limit else None
    while fits - least > 1:
        middle = (least + fits) // 2
        body = without(order[:middle])
        if _size(body) <= limit:
            fits, best = middle, body
        else:
            least = middle
    return best


# ---------------------------------------------------------------- the environments


def _inert_by_default(value: object) -> Inert:
    if value is None:
        return inert.NONE
    return value if isinstance(value, Inert) else inert.text(value)


def _difference(sample: SampleDiff, limit: int) -> Inert:
    """One sample as a unified diff: what was asked and expected, then both answers."""
    content = [
        "@@ prompt @@",
        *(f" {line}" for line in inert.lines(sample.prompt, limit)),
        "@@ expected @@",
        *(f" {line}" for line in inert.lines(sample.expected, limit)),
        "@@ baseline → candidate @@",
        *(f"-{line}" for line in inert.lines(sample.baseline_output, limit)),
        *(f"+{line}" for line in inert.lines(sample.candidate_output, limit)),
    ]
    return inert.fenced(content, "diff")


def _place(where: tuple[str, int | None]) -> str:
    """`file:line`, or the file alone."""
    file, line = where
    return file if line is None else f"{file}:{line}"


def _short(sha: str) -> str:
    return sha[:7]


_FIGURES = {
    "count": figures.count,
    "duration": figures.duration,
    "p_value": figures.p_value,
    "score": figures.score,
    "share": figures.share,
    "digest": short_digest,
    "length": len,
    "place": _place,
    "short": _short,
}


def _filled(template: str, **values: object) -> str:
    return _markdown().get_template(template).render(values)


@cache
def _markdown() -> Environment:
    env = Environment(
        loader=_LOADER,
        # HTML escaping is not enough for Markdown; `finalize` does the whole work.
        autoescape=False,  # noqa: S701
        finalize=_inert_by_default,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.clear()
    env.filters.update(
        _FIGURES,
        block=inert.block,
        cell=inert.cell,
        code=inert.code,
        difference=_difference,
        link=inert.link,
        text=inert.text,
    )
    env.tests["broke"] = broke
    return env


def _visible(value: object) -> object:
    """For HTML: autoescape makes it inert, and what would be invisible is shown."""
    if value is None:
        return inert.NONE
    if not isinstance(value, str) or isinstance(value, (Inert, Markup)):
        return value
    if not value:
        return inert.EMPTY
    return "\n".join(map(inert.visible, value.replace("\r\n", "\n").split("\n")))


@cache
def _web() -> Environment:
    env = Environment(
        loader=_LOADER,
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.clear()
    env.filters.update(_FIGURES)
    env.tests["broke"] = broke
    return env
