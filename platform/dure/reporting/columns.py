"""Tables as columns: a page shows all of them, a terminal those that fit whole, since a number that is cut off misleads."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from markupsafe import Markup
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dure.errors import counted
from dure.metrics.metric import Metric
from dure.reporting.marks import Key, Mark, Shown, Source

Cell = Shown | Markup | Text
GAP = 2
"""Cells between two columns."""
_WIDEST = 10_000
STATE_STYLES = {
    "pending": "dim",
    "running": "yellow",
    "completed": "green",
    "stopped": "cyan",
    "diverged": "red",
    "failed": "red",
    "interrupted": "magenta",
}


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    heading: Cell
    """Its heading."""
    cells: Sequence[Cell]
    """One for every row."""
    rank: int = 0
    """How soon a terminal leaves it out: the highest rank goes first, rank 0 always stays."""
    is_text: bool = False
    """Whether it is aligned to the left; numbers go to the right."""
    shortest: int | None = None
    """Cells of the terminal to which its texts may be cut; None when they must stay whole."""
    wraps_at: int | None = None
    """Cells at which its texts go on in another line, in place of being cut; None when they do not."""
    styles: Mapping[str, str] = field(default_factory=dict)
    """Colours by text."""
    starred: Collection[int] = ()
    """Places of the cells that a terminal marks with a star."""

    @cached_property
    def texts(self) -> list[Text]:
        """Its cells as a terminal shows them."""
        found = []
        for place, cell in enumerate(self.cells):
            text = cell if isinstance(cell, Text) else Text(_plain(cell), self.styles.get(str(cell), ""))
            found.append(Text(f"* {text}", style="bold green") if place in self.starred else text)
        return found

    @property
    def title(self) -> str:
        """Its heading as a terminal shows it."""
        return _plain(self.heading)

    @property
    def width(self) -> int:
        """Cells that it takes when nothing is cut; a Korean letter takes two."""
        widest = max([cell_len(self.title), *(text.cell_len for text in self.texts)])
        return widest if self.wraps_at is None else min(widest, self.wraps_at)

    @property
    def least_width(self) -> int:
        """Cells that it takes at least."""
        return self.width if self.shortest is None else min(self.width, self.shortest)


def column(heading: Cell, cells: Iterable[Any], rank: int = 0, **more: Any) -> Column:
    """Return a column of any cells; see :class:`Column`."""
    return Column(
        heading, [cell if isinstance(cell, Mark | Text | str) else str(cell) for cell in cells], rank, **more
    )


@dataclass(frozen=True)
class Rows:
    """Rows of a table that stand in a record, each at keys of its own."""

    source: Source
    places: Sequence[tuple[Key, ...]]

    @classmethod
    def of(cls, source: Source, *keys: Key, order: Iterable[Key] | None = None) -> Rows:
        """Return the rows of a list that stands at keys, or those of its places that are given, in their order."""
        places = range(len(source.get(*keys) or ())) if order is None else order
        return cls(source, [(*keys, place) for place in places])

    def column(
        self,
        heading: Cell,
        *keys: Key,
        rank: int = 0,
        written: str = "text",
        figure: Metric | None = None,
        change: Metric | None = None,
        interval: bool = False,
        more: Iterable[Cell] = (),
        **shown: Any,
    ) -> Column:
        """Return what stands in every row at keys.

        It is written by a named format, or as a ``figure`` of a metric, a ``change`` of one, or an ``interval``.
        ``more`` are cells beneath; ``shown`` is the rest of :class:`Column`.
        """
        source, written = self.source, written if change is None else f"change-{change.unit}"

        def cell(*at: Key) -> Cell:
            if figure is not None:
                return source.figure(*at, metric=figure)
            return source.interval(*at, written=written) if interval else source.mark(*at, written=written)

        return column(heading, [*(cell(*place, *keys) for place in self.places), *more], rank, **shown)


def _plain(cell: Cell) -> str:
    return cell.striptags() if isinstance(cell, Markup) else str(cell)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit side by side into ``width`` cells, in their order."""
    kept = list(columns)
    for column in sorted(columns, key=lambda column: -column.rank):
        needed = sum(one.least_width for one in kept) + GAP * (len(kept) - 1)
        if needed <= width or column.rank == 0:
            break
        kept.remove(column)
    return kept


@dataclass(frozen=True)
class FittedTable:
    """A table that fits itself to the console that prints it.

    ``elsewhere`` says where the columns are to be found that had to be left out.
    """

    columns: Sequence[Column]
    title: str = ""
    notes: Sequence[str] = ()
    elsewhere: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = fitting(self.columns, options.max_width)
        if self.title:
            yield Text(self.title, style="bold")
            yield Text()
        yield _table(kept, options.max_width)
        notes = list(self.notes)
        if self.elsewhere and len(kept) < len(self.columns):
            hidden = counted(len(self.columns) - len(kept), "more column")
            notes.insert(0, f"{hidden} in a wider window and in {self.elsewhere}")
        if notes:
            yield Text()
        yield from map(Text, notes)


def apart(first: RenderableType, *others: RenderableType | None) -> Group:
    """Return what there is to be shown, with an empty line between two."""
    return Group(first, *(part for each in others if each is not None for part in (Text(), each)))


def plain_text(shown: RenderableType) -> str:
    """Return what a table shows as plain text with all its columns, for a file or where there is no terminal."""
    file = io.StringIO()
    Console(file=file, width=_WIDEST, color_system=None).print(shown)
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _table(columns: Sequence[Column], width: int) -> Table:
    spare = width - sum(column.least_width for column in columns) - GAP * (len(columns) - 1)
    # The box puts one cell between two columns, the padding the other.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        room = min(column.width, column.least_width + max(0, spare))
        spare -= room - column.least_width
        table.add_column(
            Text(column.title),  # of a plain text [joy] would be taken for a style
            justify="left" if column.is_text else "right",
            no_wrap=column.wraps_at is None,
            overflow="ellipsis" if column.wraps_at is None else "fold",
            width=room,
        )
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*row)
    return table
