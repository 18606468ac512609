"""Tables as text with separators: CSV, TSV and their like, with quotes or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from dure.data.cells import LONGEST_CELL, REPEATED_NAMES, Record, RowProblem, repeats
from dure.data.decoding import text_lines
from dure.data.sources import literal, to_parquet
from dure.errors import UserError

_SAID_SEPARATOR = re.compile(r"sep=(.)")
_QUOTED = re.compile(r'"[^"]*"')
_WHOLE = re.compile(r'"(?:[^"]|"")*"')
_MANY_WRONG = 0.05
"""Part of the lines with another number of cells from which on a broken quote is the likelier reason."""

_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}


class DelimitedSource:
    """CSV, TSV or text with tabs, mostly with one line of column names.

    Where quotes are meant, cells in double quotes may hold delimiters and line ends.
    """

    def __init__(
        self, path: Path, encoding: str, quoting: Literal["auto", "minimal", "none"], *, header: bool
    ) -> None:
        self._path = path
        self._encoding = encoding
        self._has_header = header
        self.notes: list[str] = []
        self._delimiter, skipped = self._separator()
        self._is_quoted = self._quotes_are_meant(quoting)
        csv.field_size_limit(LONGEST_CELL)
        self._num_skipped = skipped
        self._reader = csv.reader(
            islice(text_lines(path, encoding), skipped, None),
            delimiter=self._delimiter,
            strict=True,
            quoting=csv.QUOTE_MINIMAL if self._is_quoted else csv.QUOTE_NONE,
        )
        self._rows = self._numbered_rows(0 if header else 1)
        first = next(self._rows, None)
        if first is None:
            expected = "a line of column names and rows" if header else "rows"
            raise UserError("the file is empty", where=str(path), expected=expected)
        if header:
            self.columns = first[2]
        else:
            self.columns = [str(place) for place in range(len(first[2]))]
            self._rows = chain([first], self._rows)

    def records(self, columns: Sequence[str]) -> Iterator[Record]:
        """Give the rows with the cells of ``columns``."""
        places = {column: self.columns.index(column) for column in columns if column in self.columns}
        for number, line, cells in self._rows:
            if len(cells) != len(self.columns):
                text = f"the row has {len(cells)} cells, but the table has {len(self.columns)} columns"
                yield Record(number, line, {}, RowProblem("wrong number of cells", text))
            elif self._has_header and repeats(self.columns, cells):
                yield Record(number, line, {}, REPEATED_NAMES)
            else:
                yield Record(number, line, {column: cells[place] for column, place in places.items()})

    def _separator(self) -> tuple[str, int]:
        """Return what separates cells, and how many lines say so and are no row.

        It is what the suffix says, or what stands between the column names instead. Without column names the first
        line is a row of texts, which may hold any sign and show nothing.
        """
        first = next((line for line in text_lines(self._path, self._encoding) if line.strip()), "")
        if said := _SAID_SEPARATOR.fullmatch(first.strip("\r\n")):  # as Excel writes it
            return said[1], 1
        usual = "," if self._path.suffix.lower() == ".csv" else "\t"
        names = _QUOTED.sub("", first)
        often = max(_SEPARATOR_NAMES, key=names.count)
        if usual in names or often not in names or not self._has_header:
            return usual, 0
        self.notes.append(f"its cells are separated by {_SEPARATOR_NAMES[often]}")
        return often, 0

    def _quotes_are_meant(self, quoting: Literal["auto", "minimal", "none"]) -> bool:
        if quoting != "auto" or self._delimiter != "\t":
            return quoting != "none"
        lines, again = (text_lines(self._path, self._encoding) for _ in range(2))
        found = _recognise_quoting(lines, again, self._delimiter)
        if found:
            self.notes.append("cells in quotes are taken out of them (data.quoting=none leaves quotes)")
        elif found is False:
            self.notes.append('read without quoting: " is a letter like any other (data.quoting=minimal)')
        return bool(found)

    def _numbered_rows(self, first_number: int) -> Iterator[tuple[int, int, list[str]]]:
        """Give every row that is not blank with its number and its first line; 0 is that of the column names."""
        number = first_number
        while True:
            first_line = self._num_lines() + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field limit" not in str(error):
                    raise self._broken_quote(number, first_line) from None
                raise UserError(
                    f"a cell is longer than {LONGEST_CELL:,} characters",
                    where=self._place(number, first_line),
                    expected="a cell of text",
                    hint='a quote (") is perhaps never closed there; data.quoting=none takes quotes as letters',
                ) from None
            if not _is_blank_line(cells, before_names=number == 0):
                yield number, first_line, cells
                number += 1

    def _num_lines(self) -> int:
        """Return how many lines of the file were read."""
        return self._num_skipped + self._reader.line_num

    def _place(self, number: int, first_line: int) -> str:
        row = f"row {number} (line {first_line})" if number else f"the column names (line {first_line})"
        return f"{self._path}, {row}"

    def _broken_quote(self, number: int, first_line: int) -> UserError:
        # Read once more, since what is remembered of every row would be the whole file where a quote stays open.
        def lines() -> Iterator[str]:
            return islice(text_lines(self._path, self._encoding), first_line - 1, self._num_lines())

        opened, closed = _quote_lines(lines(), first_line, self._delimiter)
        problem = f'the quote (") that opens in line {opened} '
        if closed is None:
            problem += "is never closed"
        else:
            problem += f"is closed in line {closed}, but its cell goes on after that"
        hint = (
            f"look at the cell that opens in line {opened}: it is cut off, or a quote is missing there; "
            "data.quoting=none takes quotes as letters"
        )
        if any('\\"' in line for line in lines()):  # as Spark and MySQL write
            options = (f"sep={literal(self._delimiter)}", "escapechar=chr(92)")
            command = to_parquet("pandas.read_csv", self._path, *options)
            hint = f"its quotes stand behind a backslash: {command} writes a table"
        return UserError(
            problem,
            where=self._place(number, first_line),
            expected='cells in quotes end with a quote, and quotes inside them are doubled ("")',
            hint=hint,
        )


def _quote_lines(record: Iterable[str], first_line: int, delimiter: str) -> tuple[int, int | None]:
    """Return the line where the broken quote of a row opens, and where it closes in the middle of a cell."""
    quoted, at_start, opened = False, True, first_line
    for number, line in enumerate(record, start=first_line):
        place = 0
        while place < len(line):
            character = line[place]
            if quoted and character == '"':
                after = line[place + 1 : place + 2]
                if after == '"':
                    place += 1
                elif after in ("", delimiter, "\r", "\n"):
                    quoted = False
                else:
                    return opened, number
            elif character == '"' and at_start:
                quoted, opened = True, number
            at_start = not quoted and character in (delimiter, "\r", "\n")
            place += 1
    return opened, None


def _is_blank_line(cells: Sequence[str], *, before_names: bool) -> bool:
    """Return whether a line holds nothing, or white space in place of all cells; above the names also empty cells."""
    if before_names:
        return not any(cell.strip() for cell in cells)
    return not cells or (len(cells) == 1 and cells[0].isspace())


def _recognise_quoting(lines: Iterator[str], more_lines: Iterable[str], separator: str) -> bool | None:
    """Return whether quotes mean something in a table with tabs, which are mostly written without; None without any.

    A quote is a letter where every line has as many cells as the first one, unless all quotes are as a writer sets
    them: around cells that hold quotes, doubled. Else it is what gives fewer rows of a wrong size.

    ``more_lines`` are the same lines, to be read a second time.
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
        return None
    if not wrong:
        return not bare and (header_is_quoted or not needless)
    wrong_when_meant = _wrong_rows(more_lines, separator)
    if wrong_when_meant is None:
        return wrong > _MANY_WRONG * num_lines
    return wrong_when_meant < wrong


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
