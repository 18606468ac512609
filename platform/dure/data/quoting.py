"""What separates the cells of a text table, and whether a quote in it means anything."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_OTHER_SEPARATORS = (";", "\t", ",", "|")
_QUOTED = re.compile(r'"[^"]*"')
_WHOLE = re.compile(r'"(?:[^"]|"")*"')
_MANY_WRONG = 0.05
"""Part of the lines with another number of cells from which on a broken quote is the likelier reason."""

SEPARATOR_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}


def separator_of(suffix: str, first_line: str, *, header: bool) -> str:
    """Return what separates the cells of a table: what its suffix says, or what stands between its column names.

    Args:
        suffix: Suffix of the file.
        first_line: Its first line.
        header: Whether that names the columns; a text, which may hold any sign, tells nothing.
    """
    usual = "," if suffix == ".csv" else "\t"
    names = _QUOTED.sub("", first_line)
    if usual in names or not header:
        return usual
    often = max(_OTHER_SEPARATORS, key=names.count)
    return often if often in names else usual


@dataclass(frozen=True)
class Quoting:
    """Whether a quote means anything in a table, and whether it has any.

    Attributes:
        is_meant: Whether cells may stand in quotes.
        occurs: Whether a quote was seen; not known where it was not looked for.
    """

    is_meant: bool
    occurs: bool = False


def recognise_quoting(lines: Iterator[str], more_lines: Iterable[str], separator: str) -> Quoting:
    """Return whether quotes mean something in a table with tabs, which are mostly written without.

    A quote is a letter where every line has as many cells as the first one, unless all quotes are as a writer sets
    them: around cells that hold quotes, doubled. Else it is what gives fewer rows of a wrong size.

    Args:
        lines: All lines of the table.
        more_lines: The same, to be read a second time.
        separator: What stands between cells.
    """
    num_lines, wrong, num_cells = 0, 0, 0
    bare = around = needless = 0
    header_is_quoted = False
    for line in lines:
        cells = line.rstrip("\r\n").split(separator)
        if cells == [""]:
            continue
        num_lines += 1
        if num_lines == 1:
            num_cells = len(cells)
            header_is_quoted = all(_WHOLE.fullmatch(cell) for cell in cells)
        wrong += len(cells) != num_cells
        if '"' in line:
            for cell in cells:
                if '"' not in cell:
                    continue
                is_whole = _WHOLE.fullmatch(cell) is not None
                bare += not is_whole
                around += is_whole
                needless += is_whole and '"' not in cell[1:-1]
    if not bare and not around:
        return Quoting(is_meant=False)
    if not wrong:
        return Quoting(not bare and (header_is_quoted or not needless), occurs=True)
    wrong_when_meant = _wrong_rows(more_lines, separator)
    if wrong_when_meant is None:
        return Quoting(wrong > _MANY_WRONG * num_lines, occurs=True)
    return Quoting(wrong_when_meant < wrong, occurs=True)


def _wrong_rows(lines: Iterable[str], separator: str) -> int | None:
    """Return how many rows are of another size than the first when quotes are meant, or None when one is broken."""
    wrong, num_cells = 0, None
    try:
        for cells in csv.reader(lines, delimiter=separator, strict=True):
            if cells:
                num_cells = len(cells) if num_cells is None else num_cells
                wrong += len(cells) != num_cells
    except csv.Error:
        return None
    return wrong
