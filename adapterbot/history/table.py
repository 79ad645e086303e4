"""A history for a terminal: a table for each adapter, a line for each metric."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from adapterbot.pages import charts
from adapterbot.pages.figures import Compact
from adapterbot.pages.inert import visible
from adapterbot.records import Direction
from adapterbot.records.history import History, Trend

_HEADS = ("Metric", "Trend", "First", "Last", "Change", "Commits")
_FRAME = 3 * len(_HEADS) + 1
_LEAST_NAME, _LEAST_TREND = 20, 8


def tables(history: History, width: int) -> Iterator[Table]:
    """One for each adapter. Names are a stranger's: none is markup, and nothing in them hidden.

    Args:
        width: of the terminal. A long name takes several lines, and of a trend the newest commits
            are shown. Where there is no room for the figures even so, the table is wider: a line
            that a terminal wraps can be read, and half a figure misleads.
    """
    for key, trends in history.adapters.items():
        rows = [_row(trend) for trend in trends]
        name, trend, *figures = (
            max([len(head), *(cell_len(row[i].plain) for row in rows)])
            for i, head in enumerate(_HEADS)
        )
        room = width - _FRAME - sum(figures)
        name = min(name, max(_LEAST_NAME, room - trend))
        trend = min(trend, max(_LEAST_TREND, room - name))
        widths = (name, trend, *figures)
        table = Table(title=Text(key), title_justify="left", width=_FRAME + sum(widths))
        for i, head in enumerate(_HEADS):
            table.add_column(
                head, justify="right" if i > 1 else "left", width=widths[i], overflow="fold"
            )
        for row in rows:
            table.add_row(row[0], _newest(row[1], trend), *row[2:])
        yield table


def _newest(trend: Text, width: int) -> Text:
    return trend if len(trend) <= width else Text(f"…{trend.plain[1 - width :]}")


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
        Text(str(len(known))),
    )
