"""Which experts each token of a text used: coloured for a terminal, and as a page. No torch: what
the gate said comes in as plain numbers."""

from __future__ import annotations

from rich.text import Text

from adapterbot.pages.routing import colour, heat_map, percent
from adapterbot.pages.templating import page
from adapterbot.records.routes import Routes


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
        found.append(f"{_visible(name)}  {percent(routes, expert)}")
    return found


def routes_page(routes: Routes) -> str:
    """A page of its own."""
    return page("routes.html.j2", styles=("page.css", "routing.css"), map=heat_map(routes))


def _rgb(rgb: tuple[int, int, int]) -> str:
    return f"rgb({rgb[0]},{rgb[1]},{rgb[2]})"


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
