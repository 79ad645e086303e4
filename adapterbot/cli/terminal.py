"""A comment as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000


class _RoomyTable(TableElement):
    """A table; its rows one below the other where there is no room for its columns, since a metric
    whose name is cut short may be any metric."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for shown in super().__rich_console__(console, options):
            fits = not isinstance(shown, Table) or _fit(shown, console, options)
            yield from (shown,) if fits else self._stacked()

    def _stacked(self) -> Iterator[Text | Padding]:
        head = self.header.row.cells if self.header and self.header.row else ()
        for row in self.body.rows if self.body else ():
            first, *others = (cell.content for cell in row.cells)
            yield first
            named = zip([cell.content for cell in head][1:], others, strict=True)
            parts = [
                Text.assemble((f"{name}: " if name.plain else "", "dim"), value)
                for name, value in named
                if value.plain.strip()
            ]
            yield Padding(Text(" · ").join(parts), (0, 0, 1, 3))


def _fit(table: Table, console: Console, options: ConsoleOptions) -> bool:
    """Gives every column the room of its longest word, and what is left to those that lack least;
    False where there is no such room."""
    wide = options.update(width=_UNBOUNDED)

    def measured(cell: RenderableType) -> Measurement:
        return Measurement.get(console, wide, cell)

    whole = measured(table)
    if whole.maximum <= options.max_width:
        return True
    least = [
        max(measured(cell).minimum for cell in (column.header, *column.cells))
        for column in table.columns
    ]
    # A long header may well take several lines; the figures below it should not.
    lacking = [
        max([0, *(measured(cell).maximum - low for cell in column.cells)])
        for low, column in zip(least, table.columns, strict=True)
    ]
    spare = options.max_width - whole.minimum
    if spare < 0:
        return False
    for i in sorted(range(len(least)), key=lacking.__getitem__):
        given = min(lacking[i], spare)
        table.columns[i].width = least[i] + given
        spare -= given
    return True


class Comment(Markdown):
    """Markdown of ours, of which nothing is cut off however narrow the terminal is."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "table_open": _RoomyTable,
    }
