"""Tables that leave out whole columns where there is no room, since a number that is cut off misleads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dure.reporting.figures import counted

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
    """One column of a table.

    Attributes:
        heading: Its heading.
        cells: One text per row.
        rank: How soon it is left out: the highest rank goes first, rank 0 always stays.
        is_text: Whether it is aligned to the left; numbers go to the right.
        shortest: Cells to which its texts may be cut; None when they must stay whole.
        wraps_at: Cells at which its texts go on in another line, in place of being cut; None when they do not.
    """

    heading: str
    cells: Sequence[Text]
    rank: int = 0
    is_text: bool = False
    shortest: int | None = None
    wraps_at: int | None = None

    @property
    def width(self) -> int:
        """Cells that it takes when nothing is cut; a Korean letter takes two."""
        widest = max([cell_len(self.heading), *(text.cell_len for text in self.cells)])
        return widest if self.wraps_at is None else min(widest, self.wraps_at)

    @property
    def least_width(self) -> int:
        """Cells that it takes at least."""
        return self.width if self.shortest is None else min(self.width, self.shortest)


def column(
    heading: str, cells: Iterable[Any], rank: int = 0, *, is_text: bool = False, shortest: int | None = None
) -> Column:
    """Return a column of any cells; a :class:`rich.text.Text` keeps its style. See :class:`Column`."""
    texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]
    return Column(heading, texts, rank, is_text, shortest)


def state_text(state: str) -> Text:
    """Return how a run or trial ended, in the colour that it has in every table."""
    return Text(state, style=STATE_STYLES.get(state, ""))


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

    Attributes:
        columns: All columns, with as many cells each.
        title: Line above the table.
        notes: Lines beneath it.
        elsewhere: Where the columns are to be found that had to be left out.
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
            column.heading,
            justify="left" if column.is_text else "right",
            no_wrap=column.wraps_at is None,
            overflow="ellipsis" if column.wraps_at is None else "fold",
            width=room,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table
