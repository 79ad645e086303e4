"""The two Jinja environments that every document of ours is filled in with, and the byte budget.

A page of its own carries its style and its script, and a policy that lets nothing else run or load.

Every string that a template prints is hostile. The Markdown environment therefore passes each value
through `inert.text` unless a filter has made it inert already, so a forgotten filter costs looks
and not safety; the HTML one escapes, and spells out what would be invisible.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from adapterbot.lock.schema import rewriting
from adapterbot.pages import figures, inert
from adapterbot.pages.inert import Inert
from adapterbot.pages.section import broke, short_digest
from adapterbot.records import SampleChange, SampleDiff

LOADER: Final = PackageLoader("adapterbot")
# No item is shorter than this in bytes, so that many of them is the most that can ever fit.
_LEAST_ITEM = 40
_MOST_ITEMS = 2000

Item = TypeVar("Item")


def filled(template: str, **values: object) -> str:
    """A Markdown template with its values."""
    return markdown().get_template(template).render(values)


def size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text.encode())


def fitted(
    order: Sequence[Item], without: Callable[[Iterable[Item]], str], limit: int
) -> str | None:
    """`without(order[:n])` for about the least n with which it fits; None when nothing helps.

    Args:
        order: what can be left out, least interesting first.
        without: the document without these items; its size falls with every one of them.
        limit: UTF-8 bytes.
    """
    least = max(0, len(order) - min(max(limit, 0) // _LEAST_ITEM, _MOST_ITEMS))
    best = without(order[:least])
    if size(best) <= limit:
        return best
    fits, best = len(order), without(order)
    if size(best) > limit:
        return None
    while fits - least > 1:
        middle = (least + fits) // 2
        body = without(order[:middle])
        if size(body) <= limit:
            fits, best = middle, body
        else:
            least = middle
    return best


# ---------------------------------------------------------------- the environments


def _inert_by_default(value: object) -> Inert:
    if value is None:
        return inert.NONE
    return value if isinstance(value, Inert) else inert.text(value)


def _difference(sample: SampleDiff | SampleChange, limit: int) -> Inert:
    """One sample as a unified diff: what was asked and expected, then both answers."""
    asked = [("prompt", sample.prompt)]
    if isinstance(sample, SampleDiff):
        asked.append(("expected", sample.expected))
    content: list[str] = []
    for title, said in asked:
        content += [f"@@ {title} @@", *(f" {line}" for line in inert.lines(said, limit))]
    content += [
        "@@ baseline → candidate @@",
        *(f"-{line}" for line in inert.lines(sample.baseline_output, limit)),
        *(f"+{line}" for line in inert.lines(sample.candidate_output, limit)),
    ]
    return inert.fenced(content, "diff")


def _place(where: tuple[str, int | None]) -> str:
    """`file:line`, or the file alone."""
    file, line = where
    return file if line is None else f"{file}:{line}"


_FIGURES = {
    "count": figures.count,
    "day": figures.day,
    "duration": figures.duration,
    "fixed": figures.fixed,
    "p_value": figures.p_value,
    "score": figures.score,
    "share": figures.share,
    "whole": figures.whole,
    "digest": short_digest,
    "length": len,
    "place": _place,
    "rewriting": rewriting,
    "short": lambda sha: sha[:7],
}


_OPTIONS: Final[dict[str, Any]] = {
    "loader": LOADER,
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}


@cache
def markdown() -> Environment:
    """For Markdown that GitHub shows."""
    # HTML escaping is not enough for Markdown; `finalize` does the whole work.
    env = Environment(autoescape=False, finalize=_inert_by_default, **_OPTIONS)  # noqa: S701
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
    return inert.visible_lines(value) if value else inert.EMPTY


_QUOTED = re.compile(r"`([^`\n]+)`")


def _quoted(value: str) -> Markup:
    """For HTML: a sentence, in which what the writer quoted in backticks is code."""
    inert_html = str(escape(_visible(value)))
    return Markup(_QUOTED.sub(r'<code class="quoted">\1</code>', inert_html))  # noqa: S704 - escaped before


@cache
def web() -> Environment:
    """For the page of its own."""
    env = Environment(autoescape=True, finalize=_visible, **_OPTIONS)
    env.filters = {
        **_FIGURES,
        "max": max,
        "min": min,
        "quoted": _quoted,
        "round": round,
        "sort": env.filters["sort"],
    }
    env.tests["broke"] = broke
    return env


def page(
    template: str, *, styles: Sequence[str], script: str | None = None, **values: object
) -> str:
    """A page that extends `page.html.j2`; its style and script are files of `templates/report/`."""
    style = Markup().join(map(asset, styles))
    code = asset(script) if script else None
    policy = ["default-src 'none'", f"style-src '{_hash(style)}'"]
    policy += [f"script-src '{_hash(code)}'"] if code else []
    policy += ["base-uri 'none'", "form-action 'none'"]
    csp = Markup("; ".join(policy))  # noqa: S704 - our own words and hashes
    return web().get_template(template).render(csp=csp, style=style, script=code, **values)


def drawing(template: str, *, style: str, **values: object) -> str:
    """A picture of `templates/report/` as a file of its own, with its style inside."""
    return web().get_template(f"report/{template}").render(style=asset(style), **values)


def asset(name: str) -> Markup:
    """A style sheet or a script of ours, as it goes into a page."""
    source, _, _ = LOADER.get_source(web(), f"report/{name}")
    return Markup(source)  # noqa: S704 - our own file


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
