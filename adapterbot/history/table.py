"""A history for a terminal: a table for each adapter, a line for each metric."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from adapterbot.pages import charts
from adapterbot.pages.figures import Compact
from adapterbot.pages.inert import visible
from adapterbot.records import Direction
from adapterbot.records.history import History, Trend


def tables(history: History) -> Iterator[Table]:
    """One for each adapter. Names are a stranger's: none is markup, and nothing in them hidden."""
    for key, trends in history.adapters.items():
        table = Table(title=Text(key), title_justify="left")
        table.add_column("Metric")
        table.add_column("Trend")
        for name in ("First", "Last", "Change", "Commits"):
            table.add_column(name, justify="right")
        for trend in trends:
            table.add_row(*_row(trend))
        yield table


def _row(trend: Trend) -> tuple[Text, ...]:
    levels = [point.value for point in trend.points]
    known = [level for level in levels if level is not None]
    first, last = (known[0], known[-1]) if known else (None, None)
    change = None if first is None or last is None else last - first
    scale = Compact.of(trend.unit, first, last)
    worse = change is not None and (change < 0) == (trend.direction is Direction.HIGHER)
    style = "" if not change else "red" if worse else "green"
    return (
        Text(visible(trend.metric)),
        Text(charts.sparkline(levels)),
        Text(scale.level(first)),
        Text(scale.level(last)),
        Text(scale.change(change), style=style),
        Text(str(len(levels))),
    )
