"""Pictures that GitHub draws from text: Mermaid charts, and sparklines for a table cell.

Nothing is uploaded. A chart is a fenced block of Mermaid source, so a label is untrusted text in a
second language: Mermaid ends strings at quotes, decodes `#35;`, reads Markdown between backticks
and directives behind `%%`. Here a label keeps letters, digits and a handful of harmless signs; all
other ASCII is written in its full-width form, which looks the same and means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapterbot.pages.inert import Inert, clip, fenced, visible

LABEL_LIMIT = 40
# GitHub refuses a chart of more than 50,000 characters, and nobody reads a hundred bars.
MOST_POINTS = 60
_KEPT = frozenset(" -._/+")
_FULL_WIDTH = {
    point: point - 0x20 + 0xFF00
    for point in range(0x21, 0x7F)
    if not (chr(point).isalnum() or chr(point) in _KEPT)
}
_TICKS = "▁▂▃▄▅▆▇█"
_GAP = "·"


def label(value: str, limit: int = LABEL_LIMIT) -> str:
    """`value` as the inside of a Mermaid string: one visible line without a single active sign."""
    shown = visible(clip(value, limit), in_code=True).translate(_FULL_WIDTH).strip()
    return shown or "–"


def bars(
    title: str,
    points: Sequence[tuple[str, float]],
    *,
    axis: str,
    low: float | None = None,
    high: float | None = None,
) -> Inert:
    """A bar chart, one bar for each (name, value). Title, axis and names may be hostile.

    Of more than `MOST_POINTS`, neighbours share a bar: the largest of them by size.

    Args:
        low, high: the ends of the vertical axis; Mermaid chooses what is None.

    Raises:
        ValueError: no point, or a value that is not finite: a bar of 0 would be a lie.
    """
    shown = _thinned(points)
    names = ", ".join(f'"{label(name)}"' for name, _ in shown)
    values = ", ".join(_number(value) for _, value in shown)
    ends = "" if low is None or high is None else f" {_number(low)} --> {_number(high)}"
    return fenced(
        [
            "xychart-beta",
            f'    title "{label(title, 2 * LABEL_LIMIT)}"',
            f"    x-axis [{names}]",
            f'    y-axis "{label(axis)}"{ends}',
            f"    bar [{values}]",
        ],
        "mermaid",
    )


def sparkline(
    values: Sequence[float | None], *, low: float | None = None, high: float | None = None
) -> Inert:
    """`▁▃▇█·▅`: one sign a value, a dot where there is none. Safe in a table cell.

    Args:
        low, high: what the lowest and the highest sign stand for; the extremes when None.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return Inert(_GAP * len(values))
    # Halved: the distance of two finite numbers may be infinite, that of their halves is not.
    bottom = (min(known) if low is None else low) / 2
    span = (max(known) if high is None else high) / 2 - bottom
    return Inert("".join(_tick(value, bottom, span) for value in values))


def _tick(value: float | None, bottom: float, span: float) -> str:
    """The sign of a value; `bottom` and `span` are halves."""
    if value is None or not math.isfinite(value):
        return _GAP
    # A flat line is drawn in the middle, where it claims neither the best nor the worst.
    share = (value / 2 - bottom) / span if span > 0 else 0.5
    return _TICKS[min(max(int(share * len(_TICKS)), 0), len(_TICKS) - 1)]


def _thinned(points: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    if not points:
        raise ValueError("a chart needs a point")
    if not all(math.isfinite(value) for _, value in points):
        raise ValueError("a chart takes finite values only")
    per_bar = -(-len(points) // MOST_POINTS)
    groups = (points[i : i + per_bar] for i in range(0, len(points), per_bar))
    return [max(group, key=lambda point: abs(point[1])) for group in groups]


def _number(value: float) -> str:
    """Fixed notation: Mermaid's grammar knows no exponent."""
    written = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written
