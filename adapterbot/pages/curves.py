"""The scores of a search by generation, as the points of a chart that `curves.svg.j2` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.records.merge import Generation

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 16, 44
_LINES = (("best so far", "best_so_far"), ("best", "best"), ("mean", "mean"))
_TICKS = 4


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in the units of the drawing, and its figure."""

    at: float
    said: str


@dataclass(frozen=True)
class Curve:
    """One line: its name, its class in the style sheet, its points as SVG wants them."""

    name: str
    style: str
    points: str


@dataclass(frozen=True)
class Curves:
    """Everything that is drawn; x and y in pixels from the upper left."""

    width: int
    height: int
    left: int
    right: int
    bottom: int
    levels: tuple[Tick, ...]
    generations: tuple[Tick, ...]
    lines: tuple[Curve, ...]


def curves(history: Sequence[Generation]) -> Curves:
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
        return round(LEFT + (WIDTH - LEFT - RIGHT) * generation / last, 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    levels = [low + (high - low) * step / _TICKS for step in range(_TICKS + 1)]
    generations = sorted({round(last * step / _TICKS) for step in range(_TICKS + 1)})
    return Curves(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=HEIGHT - BOTTOM,
        levels=tuple(Tick(y(value), f"{value:.3f}") for value in levels),
        generations=tuple(Tick(x(number), str(number)) for number in generations),
        lines=tuple(
            Curve(
                name,
                field.replace("_", "-"),
                " ".join(
                    f"{x(generation.generation)},{y(value)}"
                    for generation in history
                    if (value := getattr(generation, field)) is not None
                ),
            )
            for name, field in _LINES
        ),
    )
