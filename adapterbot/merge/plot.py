"""The scores of a search by generation, as an SVG that needs nothing else. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from adapterbot.records.merge import Generation

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 28, 44
_LINES = (
    ("best so far", "#1a7f37", "best_so_far", ""),
    ("best", "#0969da", "best", "4 3"),
    ("mean", "#8c959f", "mean", "1 3"),
)


def scores_svg(history: Sequence[Generation], title: str) -> str:
    """Best so far, best and mean of every generation; generation 0 are the starting points."""
    values = [
        value
        for generation in history
        for value in (generation.best_so_far, generation.best, generation.mean)
        if value is not None
    ]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.05 * (high - low) or 0.05
    low, high = low - pad, high + pad
    last = max(1, history[-1].generation if history else 1)

    def x(generation: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * generation / last

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    font = 'font-family="system-ui, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {font}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-weight="600">{escape(title)}</text>',
    ]
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
            ' stroke="#d0d7de"/>'
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3f}</text>'
        )
    below = f'y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle"'
    ticks = sorted({round(last * step / 4) for step in range(5)})
    parts += [f'<text x="{x(tick):.1f}" {below}>{tick}</text>' for tick in ticks]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">generation</text>')
    for number, (name, colour, field, dashes) in enumerate(_LINES):
        points = [
            f"{x(generation.generation):.1f},{y(value):.1f}"
            for generation in history
            if (value := getattr(generation, field)) is not None
        ]
        style = f'stroke="{colour}" stroke-dasharray="{dashes}" fill="none" stroke-width="2"'
        legend = _TOP + 18 * number + 8
        parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
        parts.append(
            f'<line x1="{_WIDTH - _RIGHT + 16}" x2="{_WIDTH - _RIGHT + 44}" y1="{legend}"'
            f' y2="{legend}" {style}/>'
            f'<text x="{_WIDTH - _RIGHT + 50}" y="{legend + 4}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
