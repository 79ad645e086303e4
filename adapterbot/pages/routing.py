"""Which experts each token used, as a heat map: tokens across, layers down. Untrusted strings are
still as they came; the template makes them inert."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from adapterbot.records.routes import Routes

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Expert:
    """One line of the legend."""

    name: str
    colour: str
    said: str


@dataclass(frozen=True)
class Cell:
    """One token in one layer: the mean of its experts' colours, and their weights in words."""

    colour: str
    said: str


@dataclass(frozen=True)
class HeatMap:
    """A text's tokens, each with whether the model wrote it, and a row of cells for each layer
    by its number."""

    legend: tuple[Expert, ...]
    tokens: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[int, tuple[Cell, ...]], ...]


def heat_map(routes: Routes) -> HeatMap:
    """The map of one text."""
    n = len(routes.experts)
    return HeatMap(
        legend=tuple(
            Expert(name, _css(colour(expert, n)), percent(routes, expert))
            for expert, name in enumerate(routes.experts)
        ),
        tokens=tuple((token.token, token.written) for token in routes.tokens),
        rows=tuple(
            (layer, tuple(_cell(token.weights[row], routes.experts) for token in routes.tokens))
            for row, layer in enumerate(routes.layers)
        ),
    )


# Colours that are told apart with any kind of colour vision: M. Okabe, K. Ito, "Color Universal
# Design", 2008, without black, which the text has. In the order in which the first of them are
# furthest apart, however many they are.
_PALETTE: tuple[RGB, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (240, 228, 66),
    (86, 180, 233),
    (204, 121, 167),
    (230, 159, 0),
    (0, 158, 115),
)


def colour(expert: int, of: int) -> RGB:
    """A colour for each expert: told apart by everybody, or, where there are more than seven,
    evenly around the wheel and of the same lightness."""
    if of <= len(_PALETTE):
        return _PALETTE[expert]
    red, green, blue = colorsys.hls_to_rgb(expert / of, 0.6, 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


def percent(routes: Routes, expert: int) -> str:
    """`40% of what was read, 71% of what was written`."""
    parts = []
    for written, what in ((False, "read"), (True, "written")):
        if shares := routes.shares(written=written):
            parts.append(f"{shares[expert]:.0%} of what was {what}")
    return ", ".join(parts)


def _cell(weights: Sequence[float], names: Sequence[str]) -> Cell:
    n = len(weights)
    red, green, blue = (
        round(sum(weight * colour(expert, n)[part] for expert, weight in enumerate(weights)))
        for part in range(3)
    )
    said = ", ".join(
        f"{names[expert]} {weight:.0%}"
        for expert, weight in sorted(enumerate(weights), key=lambda pair: -pair[1])
        if weight > 0
    )
    return Cell(_css((red, green, blue)), said)


def _css(rgb: RGB) -> str:
    return "#" + "".join(f"{min(part, 255):02x}" for part in rgb)
