"""Which experts each token of a text used: as records, coloured for a terminal, as a heat map. No
torch: what the gate said comes in as plain numbers."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from rich.text import Text

from adapterbot.pages.templating import web
from adapterbot.records import Name, Record


class TokenRoute(Record):
    """One token: its text, whether the model wrote it, and every expert's weight in every layer.

    Shapes: `weights` (layers, N), each row summing to 1 over the K experts that were used.
    """

    token: str
    written: bool
    weights: tuple[tuple[float, ...], ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """(N,): the mean weight over the layers."""
        return tuple(sum(column) / len(self.weights) for column in zip(*self.weights, strict=True))


class Routes(Record):
    """A text's tokens and the experts, in the gate's order."""

    experts: Annotated[tuple[Name, ...], Field(min_length=1)]
    tokens: tuple[TokenRoute, ...]

    def shares(self, *, written: bool) -> tuple[float, ...]:
        """(N,): the mean weight over the tokens that were read, or over those that were written."""
        chosen = [token.shares for token in self.tokens if token.written is written]
        if not chosen:
            return ()
        return tuple(sum(column) / len(chosen) for column in zip(*chosen, strict=True))


def colour(expert: int, of: int) -> tuple[int, int, int]:
    """A colour for each expert, evenly around the wheel, of the same lightness."""
    red, green, blue = colorsys.hls_to_rgb(expert / of, 0.6, 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


def terminal(routes: Routes) -> Text:
    """The text, each token in the colour of the expert with the largest share, and a legend.

    Control characters are spelt out: the text is a model's.
    """
    n = len(routes.experts)
    found = Text()
    for token in routes.tokens:
        first = max(range(n), key=token.shares.__getitem__)
        style = "bold" if token.written else ""
        found.append(_visible(token.token), style=f"{style} {_rgb(colour(first, n))}".strip())
    for expert, name in enumerate(routes.experts):
        found.append("\n■ ", style=_rgb(colour(expert, n)))
        found.append(f"{_visible(name)}  {_percent(routes, expert)}")
    return found


def _percent(routes: Routes, expert: int) -> str:
    parts = []
    for written, what in ((False, "read"), (True, "written")):
        if shares := routes.shares(written=written):
            parts.append(f"{shares[expert]:.0%} of what was {what}")
    return ", ".join(parts)


def heat_map(routes: Routes) -> str:
    """A page of its own: tokens across, layers down, each cell in the colours of its experts."""
    n = len(routes.experts)
    layers = len(routes.tokens[0].weights) if routes.tokens else 0
    legend = [
        {"name": name, "colour": _css(colour(expert, n)), "said": _percent(routes, expert)}
        for expert, name in enumerate(routes.experts)
    ]
    rows = [
        [_cell(token.weights[layer], routes.experts) for token in routes.tokens]
        for layer in range(layers)
    ]
    return (
        web()
        .get_template("routes.html.j2")
        .render(legend=legend, tokens=[(t.token, t.written) for t in routes.tokens], rows=rows)
    )


def _cell(weights: Sequence[float], names: Sequence[str]) -> dict[str, str]:
    """The mean of the experts' colours, and the weights in words."""
    n = len(weights)
    mean = [
        sum(weight * colour(expert, n)[part] for expert, weight in enumerate(weights))
        for part in range(3)
    ]
    said = ", ".join(
        f"{names[expert]} {weight:.0%}"
        for expert, weight in sorted(enumerate(weights), key=lambda pair: -pair[1])
        if weight > 0
    )
    return {"colour": _css((round(mean[0]), round(mean[1]), round(mean[2]))), "said": said}


def _rgb(rgb: tuple[int, int, int]) -> str:
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"


def _css(rgb: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
